"""Settings of result stores that Celery has and we do not build: their names are accepted, their URLs refused.

Data only. Read by ``table.py``.
"""

from __future__ import annotations

from celeriac.conf.setting import ANY, SILENT, Setting

__all__ = ["ROWS"]


ROWS: tuple[Setting, ...] = (
    # Memcached or Django cache
    Setting(
        "cache_backend",
        ANY,
        None,
        "Memcached or Django cache as result store: backend.",
        old="CELERY_CACHE_BACKEND",
        status=SILENT,
    ),
    Setting(
        "cache_backend_options",
        ANY,
        {},
        "Memcached or Django cache as result store: backend options.",
        old="CELERY_CACHE_BACKEND_OPTIONS",
        status=SILENT,
    ),
    # Cassandra
    Setting("cassandra_auth_kwargs", ANY, None, "Cassandra as result store: auth kwargs.", status=SILENT),
    Setting("cassandra_auth_provider", ANY, None, "Cassandra as result store: auth provider.", status=SILENT),
    Setting("cassandra_bundle_path", ANY, None, "Cassandra as result store: bundle path.", status=SILENT),
    Setting("cassandra_entry_ttl", ANY, None, "Cassandra as result store: entry ttl.", status=SILENT),
    Setting("cassandra_keyspace", ANY, None, "Cassandra as result store: keyspace.", status=SILENT),
    Setting("cassandra_options", ANY, {}, "Cassandra as result store: options.", status=SILENT),
    Setting("cassandra_port", ANY, None, "Cassandra as result store: port.", status=SILENT),
    Setting("cassandra_read_consistency", ANY, None, "Cassandra as result store: read consistency.", status=SILENT),
    Setting("cassandra_servers", ANY, None, "Cassandra as result store: servers.", status=SILENT),
    Setting("cassandra_table", ANY, None, "Cassandra as result store: table.", status=SILENT),
    Setting("cassandra_write_consistency", ANY, None, "Cassandra as result store: write consistency.", status=SILENT),
    # Amazon S3
    Setting("s3_access_key_id", ANY, None, "Amazon S3 as result store: access key id.", status=SILENT),
    Setting("s3_base_path", ANY, None, "Amazon S3 as result store: base path.", status=SILENT),
    Setting("s3_bucket", ANY, None, "Amazon S3 as result store: bucket.", status=SILENT),
    Setting("s3_endpoint_url", ANY, None, "Amazon S3 as result store: endpoint url.", status=SILENT),
    Setting("s3_region", ANY, None, "Amazon S3 as result store: region.", status=SILENT),
    Setting("s3_secret_access_key", ANY, None, "Amazon S3 as result store: secret access key.", status=SILENT),
    # Azure Blob Storage
    Setting("azureblockblob_base_path", ANY, "", "Azure Blob Storage as result store: base path.", status=SILENT),
    Setting(
        "azureblockblob_connection_timeout",
        ANY,
        20,
        "Azure Blob Storage as result store: connection timeout.",
        status=SILENT,
    ),
    Setting(
        "azureblockblob_container_name",
        ANY,
        "celery",
        "Azure Blob Storage as result store: container name.",
        status=SILENT,
    ),
    Setting(
        "azureblockblob_read_timeout", ANY, 120, "Azure Blob Storage as result store: read timeout.", status=SILENT
    ),
    Setting(
        "azureblockblob_retry_increment_base",
        ANY,
        2,
        "Azure Blob Storage as result store: retry increment base.",
        status=SILENT,
    ),
    Setting(
        "azureblockblob_retry_initial_backoff_sec",
        ANY,
        2,
        "Azure Blob Storage as result store: retry initial backoff sec.",
        status=SILENT,
    ),
    Setting(
        "azureblockblob_retry_max_attempts",
        ANY,
        3,
        "Azure Blob Storage as result store: retry max attempts.",
        status=SILENT,
    ),
    # Google Cloud Storage
    Setting("gcs_base_path", ANY, "", "Google Cloud Storage as result store: base path.", status=SILENT),
    Setting("gcs_bucket", ANY, None, "Google Cloud Storage as result store: bucket.", status=SILENT),
    Setting("gcs_project", ANY, None, "Google Cloud Storage as result store: project.", status=SILENT),
    Setting("gcs_ttl", ANY, 0, "Google Cloud Storage as result store: ttl.", status=SILENT),
    # Couchbase
    Setting(
        "couchbase_backend_settings",
        ANY,
        None,
        "Couchbase as result store: backend settings.",
        old="CELERY_COUCHBASE_BACKEND_SETTINGS",
        status=SILENT,
    ),
    # ArangoDB
    Setting(
        "arangodb_backend_settings",
        ANY,
        None,
        "ArangoDB as result store: backend settings.",
        old="CELERY_ARANGODB_BACKEND_SETTINGS",
        status=SILENT,
    ),
    # MongoDB
    Setting(
        "mongodb_backend_settings",
        ANY,
        None,
        "MongoDB as result store: backend settings.",
        old="CELERY_MONGODB_BACKEND_SETTINGS",
        status=SILENT,
    ),
    # Azure Cosmos DB
    Setting(
        "cosmosdbsql_collection_name",
        ANY,
        "celerycol",
        "Azure Cosmos DB as result store: collection name.",
        status=SILENT,
    ),
    Setting(
        "cosmosdbsql_consistency_level",
        ANY,
        "Session",
        "Azure Cosmos DB as result store: consistency level.",
        status=SILENT,
    ),
    Setting(
        "cosmosdbsql_database_name", ANY, "celerydb", "Azure Cosmos DB as result store: database name.", status=SILENT
    ),
    Setting(
        "cosmosdbsql_max_retry_attempts", ANY, 9, "Azure Cosmos DB as result store: max retry attempts.", status=SILENT
    ),
    Setting(
        "cosmosdbsql_max_retry_wait_time",
        ANY,
        30,
        "Azure Cosmos DB as result store: max retry wait time.",
        status=SILENT,
    ),
    # Elasticsearch
    Setting(
        "elasticsearch_max_retries",
        ANY,
        None,
        "Elasticsearch as result store: max retries.",
        old="CELERY_ELASTICSEARCH_MAX_RETRIES",
        status=SILENT,
    ),
    Setting(
        "elasticsearch_retry_on_timeout",
        ANY,
        None,
        "Elasticsearch as result store: retry on timeout.",
        old="CELERY_ELASTICSEARCH_RETRY_ON_TIMEOUT",
        status=SILENT,
    ),
    Setting(
        "elasticsearch_save_meta_as_text",
        ANY,
        True,
        "Elasticsearch as result store: save meta as text.",
        old="CELERY_ELASTICSEARCH_SAVE_META_AS_TEXT",
        status=SILENT,
    ),
    Setting(
        "elasticsearch_timeout",
        ANY,
        None,
        "Elasticsearch as result store: timeout.",
        old="CELERY_ELASTICSEARCH_TIMEOUT",
        status=SILENT,
    ),
)
