"""What a data set is (`Split` of two `Source`s), and what a data source is (`DataSource`).

A source gathers a whole batch at once, so the pipeline never loops over single examples.
"""
