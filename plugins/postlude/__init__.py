"""Postlude: lifecycle campaigns for e-commerce on Apache Airflow."""

__version__ = "0.1.0"
