"""One file for each data source: `config.data.source` names it, its `SOURCE` is a `DataSource`."""
