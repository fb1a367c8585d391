"""Which addresses of stores may stand in a study file: those with no place for a password or a token.

A study file is shared, kept in Optuna's store and logged to MLflow. So what may stand in an address is listed here,
part by part; everything else is refused, and no message repeats it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

HOST = r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?"
OWN_FORM = r"(?!(?:sqlite|file|mysql|postgres|postgresql|mssql|databricks|databricks-uc|uc|arn)\b)"

FORMS = (
    rf"{OWN_FORM}[a-z][a-z0-9+.-]*://{HOST}(?:/[^?#\s]*)?",  # a server: a user could be a token, a query anything
    rf"(?:mysql|postgresql|mssql)(?:\+\w+)?://(?:[\w.-]+@)?(?:{HOST})?(?:/[\w.$-]*)?(?:\?(?P<database>\S*))?",
    r"sqlite:///[^?#]+(?:\?(?P<file>\S*))?",
    r"file:(?:(?:///|/(?!/))[^?#]*|[^/?#:@][^?#:@]*)",
    r"(?:databricks|databricks-uc|uc)(?:://[\w.-]+(?::[\w.-]+)?)?",  # a profile, or a scope and the name of a secret
    r"arn:[\w:/.-]+",
    r"(?!//|.*://)(?:[./~]|[a-z]:[\\/])[^?]*",  # a path
    r"[^:@?#]+",
)
"""The allowed forms of a whole address."""

ARTIFACTS = (
    FORMS[0],  # a bucket
    rf"(?:wasbs?|abfss?|sftp)://[\w.-]+@{HOST}(?:/[^?#\s]*)?",  # a container of an account; a user with a key
    r"(?:file|dbfs|mlflow-artifacts):/(?:(?:/(?=/))?/?[^/?#:@][^?#@\s]*)?",
    *FORMS[-2:],
)
"""The allowed forms of the place of files."""

DATABASE = r"(?:sqlite|postgresql|mysql)(?:\+\w+)?://(?!/?:memory:)\S.*"
"""The form of the address of a database that Optuna can use; one in memory would end with its process."""

OPTIONS = frozenset({
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl", "ssl_ca", "ssl_cert", "ssl_key", "ssl_mode",
    "connect_timeout", "application_name", "charset", "driver", "encrypt", "trustservercertificate",
    "trusted_connection", "target_session_attrs", "gssencmode", "krbsrvname", "unix_socket", "host", "port",
    "timeout", "mode", "cache", "uri", "nolock", "immutable", "check_same_thread", "isolation_level", "vfs",
    "read_default_file", "read_default_group",
})  # fmt: skip
"""What a database's address may set behind its question mark: names, paths and switches."""

VALUE, SCHEMA = re.compile(r"[\w./:+, -]*"), re.compile(r"options=-c ?search_path=[\w,]+")

SECRETS = r"passw\w*|pwd|token|secret"
"""Names of values that are never shown anywhere."""

SECRET_ARGUMENTS = r"[\w.-]*(?:pass|key|auth|credential|sig|jwt|bearer)[\w.-]*"
"""Names of values that are never shown in the query of an address."""

TOKEN = re.compile(r"(?i)(?<![a-z0-9])(?:dapi|hf_|gh[a-z]_|github_pat_|glpat-|sk-|xox[a-z]-|akia|eyj)[\w-]{12,}")
"""Tokens that are known by their prefix: refused even in the place of a name."""


def holds_no_secret(uri: str, forms: Iterable[str] = FORMS) -> bool:
    """Whether no part of a store's address can hold a secret.

    Args:
        uri: the address.
        forms: that it may have.
    """
    if uri != uri.strip() or not uri.isprintable() or TOKEN.search(uri):
        return False
    for form in forms:
        if found := re.fullmatch(form, uri, re.IGNORECASE):
            queries = found.groupdict().values()
            return all(_is_plain(part) for query in queries for part in (query or "").split("&"))
    return False


def is_database(uri: str) -> bool:
    """Whether an address is that of a database which keeps what is written."""
    return re.fullmatch(DATABASE, uri, re.IGNORECASE) is not None and "mode=memory" not in uri.lower()


def is_address(reference: str) -> bool:
    """Whether a reference is a network address, where a path or a name is expected."""
    return re.match(r"\s*[a-z][a-z0-9+.-]*://", reference, re.IGNORECASE) is not None


def public(text: str) -> str:
    """`text` without the user and password of an address, and without other secrets in it."""
    text = re.sub(r"(?<!/)//(?!/)[^@\s]*@", "//", text)
    text = re.sub(rf"(?i)((?:{SECRETS})(?:=|%3d))[^&;\s]*", r"\1…", text)
    return re.sub(rf"(?i)([?&;]{SECRET_ARGUMENTS}=)[^&;\s]*", r"\1…", text)


def _is_plain(setting: str) -> bool:
    """Whether a setting in a query is allowed, and its value contains no further setting."""
    name, _, value = setting.partition("=")
    if SCHEMA.fullmatch(unquote(setting)):
        return True
    return not setting or (name.lower() in OPTIONS and VALUE.fullmatch(unquote(value)) is not None)
