from __future__ import annotations

from pathlib import Path

import pytest

from deltadatabase.errors import StartupError
from deltadatabase.settings import (
    load_admin_key,
    load_doctor,
    load_main,
    load_scrub,
    load_serve,
    load_worker,
)
from deltadatabase.settings.values import Address, Secret

KEY = "0123456789abcdef" * 4
OTHER_KEY = "f" * 64


def refused(load, *arguments, **environ):
    with pytest.raises(StartupError) as caught:
        load(arguments, environ)
    assert caught.value.code == "bad_flag"
    return caught.value.detail


def test_documented_defaults_of_main_worker():
    settings = load_main([], {})
    assert str(settings.grpc_addr) == "127.0.0.1:50051"
    assert str(settings.rest_addr) == "127.0.0.1:8080"
    assert settings.shared_fs == Path("./shared/db")
    assert settings.state_path == Path("./shared/db/_state")
    assert settings.client_ttl == 86_400
    assert settings.rest_max_body_size == 2**20
    assert settings.drain_timeout == 10
    assert (settings.log_level, settings.log_format) == ("info", "text")
    assert not settings.dev
    assert not settings.public_schemas
    assert settings.metrics_addr is None
    assert settings.notes == ()


def test_documented_defaults_of_proc_worker():
    settings = load_worker([], {}, host_name="pod-7")
    assert settings.worker_id == "pod-7"
    assert str(settings.main_addr) == "127.0.0.1:50051"
    assert str(settings.grpc_addr) == "127.0.0.1:0"
    assert settings.advertise_addr is None
    assert (settings.cache_bytes, settings.cache_size, settings.cache_ttl) == (256 * 2**20, 0, 0)
    assert settings.meta_sidecar
    assert settings.store_wait == 60
    assert settings.s3.region == "us-east-1"
    assert settings.s3.path_style
    assert not settings.s3.enabled


def test_the_documented_s3_command():
    settings = load_worker(
        [
            "-main-addr=main-worker:50051",
            "-worker-id=proc-1",
            "-grpc-addr=0.0.0.0:50052",
            "-s3-endpoint=http://rustfs:9000",
            "-s3-bucket=delta-db",
            "-s3-access-key=minioadmin",
            "-s3-secret-key=minioadmin",
            "-s3-path-style=true",
        ],
        {},
    )
    assert settings.main_addr == Address("main-worker", 50051)
    assert settings.worker_id == "proc-1"
    assert settings.s3.enabled
    assert settings.s3.endpoint == "http://rustfs:9000"
    assert settings.s3.bucket == "delta-db"
    assert settings.s3.secret_key == Secret("minioadmin")


@pytest.mark.parametrize(
    ("arguments", "endpoint", "bucket"),
    [
        (["-s3-endpoint=rustfs:9000", "-s3-bucket=b-1"], "http://rustfs:9000", "b-1"),
        (["-s3-endpoint=rustfs:9000", "-s3-bucket=b-1", "-s3-use-ssl"], "https://rustfs:9000", "b-1"),
        (["-s3-endpoint=rustfs", "-s3-bucket=b-1"], "http://rustfs", "b-1"),
        (["-s3-endpoint=https://s3.example/", "-s3-bucket=b-1"], "https://s3.example", "b-1"),
        (["-s3-endpoint=http://[::1]:9000", "-s3-bucket=s3://b-1"], "http://[::1]:9000", "b-1"),
        (["-s3-bucket=s3://b-1"], "", "b-1"),
        (["-s3-bucket=s3://b-1/"], "", "b-1"),
        ([], "", ""),
    ],
)
@pytest.mark.parametrize("load", [load_worker, load_serve])
def test_s3_endpoints(load, arguments, endpoint, bucket):
    s3 = load(arguments, {}).s3
    assert (s3.endpoint, s3.bucket, s3.enabled) == (endpoint, bucket, bool(bucket))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-s3-endpoint=http://h:1"], "-s3-endpoint needs -s3-bucket"),
        (["-s3-endpoint=http://h:1", "-s3-bucket=s3://"], "-s3-endpoint needs -s3-bucket"),
        (["-s3-bucket=plain"], "write s3://NAME for AWS itself"),
        (["-s3-bucket=s3://"], "not a bucket name"),
        (["-s3-bucket=s3://a/b"], "not a bucket name"),
        (["-s3-endpoint=http://h:1", "-s3-bucket=b-1", "-s3-use-ssl"], "contradicts"),
        (["-s3-endpoint=ftp://h:1", "-s3-bucket=b-1"], "not a URL"),
        (["-s3-endpoint=http://u:hunter2@h:1", "-s3-bucket=b-1"], "not a URL"),
        (["-s3-endpoint=http://h:1/hunter2", "-s3-bucket=b-1"], "not a URL"),
        (["-s3-endpoint=http://h:1?x=hunter2", "-s3-bucket=b-1"], "not a URL"),
        (["-s3-endpoint=http://h:99999", "-s3-bucket=b-1"], "not a URL"),
        (["-s3-endpoint=http://", "-s3-bucket=b-1"], "not a URL"),
        (["-s3-endpoint=http://[::1", "-s3-bucket=b-1"], "not a URL"),
        (["-s3-bucket=s3://b-1", "-s3-access-key=a"], "belong together"),
        (["-s3-bucket=s3://b-1", "-s3-secret-key=hunter2"], "belong together"),
    ],
)
def test_s3_refusals(arguments, words):
    detail = refused(load_worker, *arguments)
    assert words in detail
    assert "hunter2" not in detail


def test_main_worker_takes_the_s3_flags_without_using_the_store():
    settings = load_main(["-s3-endpoint=http://h:1", "-s3-access-key=a", "-s3-secret-key=b"], {})
    assert settings.s3.secret_key == Secret("b")


def test_flags_of_the_go_system_are_noted():
    settings = load_main(["-entity-cache-size=1000", "-key-store=./keys.json"], {})
    assert len(settings.notes) == 2
    assert settings.notes[0].startswith("-entity-cache-size has no effect: ")
    assert settings.notes[1].startswith("-key-store has no effect: ")


@pytest.mark.parametrize(
    ("arguments", "dev"),
    [
        ([], True),
        (["-rest-addr=localhost:1"], True),
        (["-rest-addr=[::1]:1"], True),
        (["-dev"], True),
        (["-dev=false"], False),
        (["-rest-addr=:8080"], False),
        (["-rest-addr=10.0.0.1:8080"], False),
        (["-admin-key=kkkkkkkkkkkkkkkk"], False),
    ],
)
def test_dev_mode_of_serve(arguments, dev):
    assert load_serve(arguments, {}).dev is dev


def test_dev_mode_heeds_the_environment():
    assert not load_serve([], {"ADMIN_KEY": "kkkkkkkkkkkkkkkk"}).dev
    assert not load_serve([], {"DELTADB_DEV": "false"}).dev


@pytest.mark.parametrize("load", [load_serve, load_main])
@pytest.mark.parametrize(
    "arguments",
    [
        ("-dev", "-rest-addr=:8080"),
        ("-dev", "-rest-addr=example.org:80"),
        ("-dev", "-admin-key=hunter2-hunter2-h"),
    ],
)
def test_dev_mode_is_refused_where_others_could_use_it(load, arguments):
    detail = refused(load, *arguments)
    assert "-dev" in detail
    assert "hunter2" not in detail


def test_dev_mode_of_main_worker():
    assert load_main(["-dev"], {}).dev
    assert load_main(["-dev=true", "-rest-addr=127.0.0.1:9"], {}).dev


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-memory", "-workers=2"], "-memory works in one process"),
        (["-memory", "-s3-bucket=s3://b-1"], "choose one"),
        (["-memory", "-rest-addr=:1"], "needs -admin-key, or -state-dir"),
        (["-grpc-addr=:1"], "-grpc-addr needs -workers"),
        (["-workers=65"], "'65' is more than 64"),
        (["-workers=-1"], "'-1' is not a whole number"),
    ],
)
def test_serve_refusals(arguments, words):
    assert words in refused(load_serve, *arguments)


def test_serve_combinations_that_work():
    assert load_serve(["-memory"], {}).memory
    assert load_serve(["-memory", "-rest-addr=:1", "-admin-key=kkkkkkkkkkkkkkkk"], {}).memory
    assert load_serve(["-memory", "-rest-addr=:1", "-state-dir=x"], {}).state_path == Path("x")
    assert load_serve(["-workers=2", "-grpc-addr=:1"], {}).grpc_addr == Address("0.0.0.0", 1)


@pytest.mark.parametrize("name", ["master-key", "master-key-previous"])
@pytest.mark.parametrize("value", ["0123", "g" * 64, KEY + "0", KEY[:-1] + " "])
def test_master_keys_have_64_hex_digits(name, value):
    detail = refused(load_main, f"-master-key={KEY}", f"-{name}={value}")
    assert f"-{name}: must be 64 hex digits" in detail
    assert value not in detail


def test_master_keys():
    settings = load_main([], {"MASTER_KEY": KEY, "MASTER_KEY_PREVIOUS": OTHER_KEY})
    assert settings.master_key == Secret(KEY)
    assert settings.master_key_previous == Secret(OTHER_KEY)
    assert "needs -master-key" in refused(load_main, MASTER_KEY_PREVIOUS=KEY)
    assert "the same key" in refused(load_main, MASTER_KEY=KEY, MASTER_KEY_PREVIOUS=KEY.upper())


@pytest.mark.parametrize("value", ["with space", "tab\tbed", "ü", "x" * 513])
def test_tokens_must_fit_into_a_header(value):
    for name in ("admin-key", "join-token"):
        detail = refused(load_main, f"-{name}={value}")
        assert detail.startswith(f"-{name}: printable ASCII")
        assert value not in detail


@pytest.mark.parametrize("load", [load_main, load_serve, load_worker])
def test_certificate_and_key_belong_together(load):
    assert "belong together" in refused(load, "-tls-cert=c.pem")
    assert "belong together" in refused(load, "-tls-key=k.pem")
    assert load(["-tls-cert=c.pem", "-tls-key=k.pem"], {}).tls.cert == Path("c.pem")


@pytest.mark.parametrize("load", [load_main, load_worker])
def test_tls_flags_that_contradict_each_other(load):
    pair = ["-tls-cert=c.pem", "-tls-key=k.pem"]
    for alone in ("-tls-ca=a.pem", "-tls-client-auth", "-tls-server-name=name"):
        assert "need -tls-cert and -tls-key" in refused(load, alone)
    assert "-tls-client-auth needs -tls-ca" in refused(load, *pair, "-tls-client-auth")
    for name in ("a b", "-a", "*", "*.example.org", "a:1", "https://a", "ü", "x" * 254, "a\nb", "a."):
        assert refused(load, *pair, f"-tls-server-name={name}") == "-tls-server-name: not a host name"
    tls = load([*pair, "-tls-ca=a.pem", "-tls-client-auth=true", "-tls-server-name=deltadb.internal"], {}).tls
    assert tls.client_auth and tls.server_name == "deltadb.internal"


def test_client_certificates_are_for_grpc():
    flags = ["-tls-cert=c.pem", "-tls-key=k.pem", "-tls-ca=a.pem", "-tls-client-auth"]
    assert "REST takes no client certificates" in refused(load_serve, *flags)
    assert load_serve([*flags, "-workers=2"], {}).tls.client_auth


def test_documents_must_fit_into_a_message():
    detail = refused(load_main, "-rest-max-body-size=64MiB")
    assert "-grpc-max-recv-msg-size 66MiB or more" in detail
    assert load_main(["-rest-max-body-size=64MiB", "-grpc-max-recv-msg-size=66MiB"], {})


@pytest.mark.parametrize(
    "arguments",
    [["-worker-id=a b"], ["-worker-id=../x"], ["-main-addr=h:0"], ["-advertise-addr=h:0"]],
)
def test_worker_refusals(arguments):
    assert refused(load_worker, *arguments)


def test_where_the_admin_key_is_looked_for():
    assert load_admin_key([], {}).state_path == load_serve([], {}).state_path == load_main([], {}).state_path
    assert load_admin_key(["-state-dir=s"], {}).state_path == Path("s")
    assert load_admin_key(["-data", "d"], {}).state_path == Path("d/_state")
    assert load_admin_key([], {"DELTADB_STATE_DIR": "s"}).state_path == Path("s")


def test_dev_mode_needs_a_loopback_grpc_address_too():
    with pytest.raises(StartupError) as caught:
        load_main(["-dev", "-grpc-addr=:50051"], {})
    assert "-grpc-addr" in caught.value.detail
    assert not load_serve(["-workers=1", "-grpc-addr=:50051"], {}).dev
    assert load_serve(["-workers=1", "-grpc-addr=127.0.0.1:50051"], {}).dev


@pytest.mark.parametrize("load", [load_scrub, load_doctor])
def test_what_works_on_a_store_finds_it_like_a_worker(load):
    settings = load([], {})
    assert settings.shared_fs == Path("./shared/db") and settings.state_path == Path("./shared/db/_state")
    assert not settings.s3.enabled and not settings.json and settings.store_wait == 10
    settings = load(
        ["-shared-fs=/x", "-s3-endpoint=rustfs:9000", "-s3-bucket", "bucket", "-json"],
        {"MASTER_KEY": KEY, "MASTER_KEY_PREVIOUS": OTHER_KEY, "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "s"},
    )
    assert settings.s3.endpoint == "http://rustfs:9000" and settings.s3.bucket == "bucket"
    assert settings.master_key == Secret(KEY) and settings.json
    assert settings.state_path == Path("/x/_state")
    assert "64 hex digits" in refused(load, "-master-key=short")
    assert "same key" in refused(load, f"-master-key={KEY}", f"-master-key-previous={KEY.upper()}")
    assert "belong together" in refused(load, "-s3-bucket=s3://bucket", "-s3-access-key=a")
    # The present one may be in the state directory.
    assert load([f"-master-key-previous={KEY}"], {}).master_key is None


def test_scrub_flags_that_contradict_each_other():
    assert "choose one" in refused(load_scrub, "-dry-run", "-remove-tombstones")
    assert "leave -resume out" in refused(load_scrub, "-end-maintenance", "-resume")
    settings = load_scrub(["-dry-run", "-quarantine", "-remove-orphans"], {})
    assert settings.dry_run and settings.quarantine and not settings.remove_tombstones
    assert load_scrub(["-end-maintenance"], {}).end_maintenance


def test_the_doctor_checks_a_given_join_token():
    assert "-join-token" in refused(load_doctor, "-join-token=short")
