"""What people do with finished runs: compare, probe, sweep, edit."""
