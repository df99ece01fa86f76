"""Feature networks in use, streaming statistics, metrics, their protocol, and the report.

`score.py` puts the metrics together; `report.py` and `figures.py` show them.
"""
