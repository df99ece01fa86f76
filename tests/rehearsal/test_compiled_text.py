"""What is read of a compiled program's text, in the forms that XLA prints on CPU and TPU."""

import pytest

from sphere_jax.rehearsal.compiled_text import Collective, bytes_of_type, read_program

TEXT = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%fused (p: bf16[64,128]) -> bf16[128,128] {
  %inner = bf16[128,128]{1,0} convolution(%p, %p), backend_config={"estimated_cycles":"999"}
}

%body (s: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %weights = (bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[128,128]{1,0}) all-gather-start(%w), replica_groups=[1,4]<=[4], dimensions={0}
  %whole = bf16[128,128]{1,0} all-gather-done(%weights)
  %dot = f32[8,128]{1,0} fusion(%x, %whole), kind=kOutput, calls=%fused, metadata={op_name="jit(step)/dot"}, backend_config={"estimated_cycles":"100"}
}

%condition (s: (s32[], f32[8,128])) -> pred[] {
  %n = s32[]{:T(128)} constant(3)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %loop = (s32[], f32[8,128]{1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"},"estimated_cycles":"5"}
  %total = f32[128,128]{1,0} all-reduce(%g), replica_groups={{0,1},{2,3}}, to_apply=%add
  %part = f32[32,128]{1,0} reduce-scatter(%g), replica_groups=mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}, to_apply=%add
  ROOT %update = f32[8,128]{1,0} multiply(%a, %a), backend_config={"estimated_cycles":"40"}
}
"""  # noqa: E501


def test_what_is_inside_a_loop_counts_once_an_iteration():
    program = read_program(TEXT)
    assert program.cycles == 3 * 100 + 40  # neither the loop itself nor the inside of a fusion
    first, second = program.operations
    assert (first.name, first.op_name, first.cycles, first.times) == (
        "dot",
        "jit(step)/dot",
        300,
        3,
    )
    assert second.name == "update"


def test_a_loop_without_an_annotation_counts_to_the_constant_of_its_condition():
    annotated = '"known_trip_count":{"n":"3"},'
    assert annotated in TEXT and read_program(TEXT.replace(annotated, "")).cycles == 340
    assert read_program(TEXT.replace(annotated, "").replace("=LT", "=NE")).cycles == 140


def test_collectives_with_their_groups():
    found = {each.kind: each for each in read_program(TEXT).collectives}
    assert found["all-gather"] == Collective("all-gather", 2 * 128 * 128, 4, 3, True)
    assert found["all-reduce"] == Collective("all-reduce", 4 * 128 * 128, 2, 1, False)
    assert found["reduce-scatter"] == Collective("reduce-scatter", 4 * 128 * 128, 4, 1, False)
    assert found["all-gather"].moved == 3 * 2 * 128 * 128 * 3 / 4
    assert found["all-reduce"].moved == 2 * 4 * 128 * 128 / 2


FUSED_SUM = """\
HloModule jit_step, is_scheduled=true

%all-reduce-scatter.1.clone (input: bf16[288,5120]) -> bf16[72,5120] {
  %whole = bf16[288,5120]{1,0} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %part = bf16[72,5120]{1,0} dynamic-slice(%whole, %place, %zero)
}

ENTRY %main (g: bf16[288,5120]) -> bf16[72,5120] {
  ROOT %part = bf16[72,5120]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1.clone
}
"""


def test_a_sum_fused_with_the_part_that_is_kept_is_a_reduce_scatter():
    (found,) = read_program(FUSED_SUM).collectives
    assert found == Collective("reduce-scatter", 2 * 288 * 5120, 4, 1, False)
    assert found.moved == 2 * 288 * 5120 * 3 / 4


def test_a_gather_in_pieces_counts_once():
    """The TPU compiler writes its start, its end and what is fused with it, with one channel."""
    gather = "  %g.{} = bf16[64,128]{{1,0}} all-gather(%p), channel_id=7, replica_groups=[1,4]<=[4]"
    lines, calls = ["HloModule jit_step"], []
    for n, name in enumerate(
        ("fused_computation", "async_collective_fusion", "fused_computation.2")
    ):
        lines += [f"%{name} (p: bf16[16,128]) -> bf16[64,128] {{", gather.format(n), "}"]
        calls.append(f"  %c.{n} = bf16[64,128]{{1,0}} fusion(%a), kind=kCustom, calls=%{name}")
    lines += ["ENTRY %main (a: bf16[16,128]) -> bf16[64,128] {", *calls, "}"]
    program = read_program("\n".join(lines))
    assert program.collectives == (Collective("all-gather", 2 * 64 * 128, 4, 1, True),)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [("f32[2,3]{1,0}", [24]), ("(bf16[4], pred[8], s32[])", [8, 8, 4]), ("token[]", [])],
)
def test_bytes_of_types(shape, sizes):
    assert bytes_of_type(shape) == sizes
