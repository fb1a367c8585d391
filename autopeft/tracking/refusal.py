"""Whether a store that did not take a call might take it later."""

from __future__ import annotations

import enum
import errno
import re

import requests
from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, MlflowException, RestException
from mlflow.protos import databricks_pb2 as codes
from sqlalchemy.exc import DataError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

CERTAIN = {
    codes.ErrorCode.Name(code)
    for code in (
        codes.INVALID_PARAMETER_VALUE,
        codes.RESOURCE_DOES_NOT_EXIST,
        codes.RESOURCE_ALREADY_EXISTS,
        codes.INVALID_STATE,
    )
}
"""Answers that come from MLflow itself, and would be the same again."""

PASSING = (408, 425, 429, 502, 503, 504)
"""HTTP status codes that may be different next time."""

TOO_MANY = re.compile(r"too many (\d+) error responses")
"""What urllib3 says after its last attempt; the number is the HTTP status."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""A full disk: room may be made."""


class Verdict(enum.Enum):
    """What caused an error of a call."""

    AWAY = "the store is away"
    DOUBTFUL = "the call or the store"
    FINAL = "the call"


class UnsendableError(Exception):
    """What a call should send does not exist, or has changed."""


def verdict(error: BaseException) -> Verdict:
    """Judge an error of a call; DOUBTFUL if it takes other calls to tell whether the store is away."""
    if isinstance(error, (UnsendableError, ImportError)):  # such as a bucket's client that is not installed
        return Verdict.FINAL
    if isinstance(error, MlflowException):
        return _of_mlflow(error)
    if isinstance(error, (requests.ConnectionError, requests.Timeout, ConnectionError, TimeoutError)):
        return Verdict.AWAY
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return Verdict.AWAY if error.response.status_code in PASSING else Verdict.DOUBTFUL
    if isinstance(error, OSError) and error.errno in FULL:
        return Verdict.AWAY
    return _of_database(error) if isinstance(error, SQLAlchemyError) else Verdict.DOUBTFUL


def _of_mlflow(error: MlflowException) -> Verdict:
    if isinstance(error.__cause__, SQLAlchemyError):
        return _of_database(error.__cause__)
    under = error.__context__  # the error that MLflow's client put into words
    if isinstance(under, (requests.ConnectionError, requests.Timeout)):
        return Verdict.AWAY
    if isinstance(under, requests.exceptions.RetryError) and (found := TOO_MANY.search(str(under))):
        return Verdict.AWAY if int(found[1]) in PASSING else Verdict.DOUBTFUL
    status = ERROR_CODE_TO_HTTP_STATUS.get(error.error_code, 500)
    if error.error_code in CERTAIN:
        return Verdict.FINAL
    if status in PASSING:
        return Verdict.AWAY
    # Other answers may come from a proxy whose server is away, unless their body is MLflow's own.
    own = isinstance(error, RestException) and 400 <= status < 500 and status != 401
    return Verdict.FINAL if own else Verdict.DOUBTFUL


def _of_database(error: SQLAlchemyError) -> Verdict:
    if isinstance(error, (IntegrityError, DataError)):
        return Verdict.FINAL
    return Verdict.AWAY if isinstance(error, (OperationalError, PoolTimeout)) else Verdict.DOUBTFUL
