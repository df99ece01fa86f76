"""Networks with parameters. They know neither spheres nor losses."""
