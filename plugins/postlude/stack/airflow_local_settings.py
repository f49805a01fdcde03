"""Copied to $AIRFLOW_HOME/config, where Airflow imports it in every process.

Tasks are forked from the scheduler (LocalExecutor) or the worker (Celery). What those have imported, a task need not
import: Great Expectations alone costs a task about six seconds of CPU.
"""

import logging
import sys

if sys.argv[1:2] == ["scheduler"] or sys.argv[1:3] == ["celery", "worker"]:
    logging.disable(logging.INFO)  # importing it says some 200 lines
    try:
        import great_expectations  # noqa: F401
        import pandas  # noqa: F401
    except ImportError as error:
        logging.getLogger(__name__).warning("not imported beforehand: %s", error)
    finally:
        logging.disable(logging.NOTSET)
