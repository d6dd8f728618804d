"""The tables of a library's database, as numbered changes of it.

The n-th of ``MIGRATIONS``, counted from 1, makes schema n of what schema n - 1 was; ``store``
applies those that a database lacks when it opens it, and notes them in ``schema_versions``.
"""

from __future__ import annotations

import secrets
import time

import duckdb


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("""
        CREATE TABLE changes (version BIGINT, token BIGINT, last_segment BIGINT, changed_at DOUBLE);
        CREATE TABLE recordings (
            recording_id BIGINT, content_hash BLOB, duration_s DOUBLE, added_at DOUBLE);
        CREATE TABLE files (
            path BLOB, display VARCHAR, root BLOB, size BIGINT, mtime_ns BIGINT, inode UBIGINT,
            device UBIGINT, recording_id BIGINT, title VARCHAR, artist VARCHAR, album VARCHAR,
            year INTEGER, isrc VARCHAR, work VARCHAR, missing_at DOUBLE);
        CREATE TABLE analyses (
            recording_id BIGINT, model_id VARCHAR, space VARCHAR, version BIGINT, vocalness FLOAT,
            sung BOOLEAN, truncated BOOLEAN, decoder VARCHAR, n_segments INTEGER, vector BLOB);
        CREATE TABLE segments (
            segment_id BIGINT, recording_id BIGINT, model_id VARCHAR, space VARCHAR,
            start_s DOUBLE, end_s DOUBLE, vocalness FLOAT, weight FLOAT, vector BLOB);
        CREATE TABLE failures (
            path BLOB, display VARCHAR, content_hash BLOB, code VARCHAR, message VARCHAR,
            attempts INTEGER, first_at DOUBLE, last_at DOUBLE, decoder VARCHAR);
        CREATE TABLE runs (
            run_id BIGINT, started_at DOUBLE, ended_at DOUBLE, model_id VARCHAR, counts VARCHAR);
    """)
    first = [0, secrets.randbits(62), 0, time.time()]
    connection.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", first)


def _add_roots(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("""
        CREATE TABLE roots (
            path BLOB, display VARCHAR, exclude VARCHAR, follow_symlinks BOOLEAN);
        CREATE TABLE devices (path BLOB, device UBIGINT);
    """)


def _add_transcripts(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE analyses ADD COLUMN transcript BLOB")


def _add_model_choice(connection: duckdb.DuckDBPyConnection) -> None:
    # A change that only concerns answers of one model names it; others name none.
    connection.execute("""
        CREATE TABLE model_choice (answers VARCHAR, target VARCHAR, since DOUBLE);
        ALTER TABLE changes ADD COLUMN model_id VARCHAR;
    """)


def _add_speech(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE analyses ADD COLUMN speech FLOAT")


MIGRATIONS = (
    _create,
    _add_roots,
    _add_transcripts,
    _add_model_choice,
    _add_speech,
)  # the n-th, counted from 1, makes schema n; never change one, add one
