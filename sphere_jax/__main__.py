"""`python -m sphere_jax COMMAND`, or `sphere_jax COMMAND` where the package is installed."""

import ast
import importlib
import pkgutil
import sys
from pathlib import Path

import sphere_jax
from sphere_jax.cli import run_command
from sphere_jax.common.errors import UserError
from sphere_jax.common.plugins import nearest
from sphere_jax.config.config_files import shipped

NOT_COMMANDS = ("__main__", "cli")


def commands() -> dict[str, str]:
    """What each module at the top of the package does: the first line of its docstring."""
    found = {}
    for module in pkgutil.iter_modules(sphere_jax.__path__):
        if not module.ispkg and module.name not in NOT_COMMANDS:
            file = Path(sphere_jax.__path__[0]) / f"{module.name}.py"
            found[module.name] = ast.get_docstring(ast.parse(file.read_text())).splitlines()[0]
    return found


def main() -> None:
    """Runs the command that the first argument names; lists them without one."""
    name, *flags = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: sphere_jax COMMAND [flags]; sphere_jax COMMAND --help lists the flags\n")
        for command, about in commands().items():
            print(f"  {command:<10}{about}")
        print(f"\nconfigs: {shipped('configs')}, by their names too: --config=mnist_slerp")
        print(f"scripts for several processes: {shipped('launch')}")
        return
    sys.argv = [f"sphere_jax {name}", *flags]
    run_command(_command(name))


def _command(name: str):
    if name in commands():
        return importlib.import_module(f"sphere_jax.{name}").main

    def refuse(_):
        raise UserError(f"There is no command '{name}'; {nearest(name, commands())}")

    return refuse


if __name__ == "__main__":
    main()
