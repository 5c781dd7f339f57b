from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.errors import StartupError
from deltadatabase.settings import (
    AdminKeySettings,
    Asked,
    DeleteSettings,
    MainSettings,
    PlainSettings,
    PutSettings,
    ServeSettings,
    WorkerSettings,
    describe,
    flags_of,
    load_command,
    load_main,
    load_serve,
    load_worker,
)
from deltadatabase.settings.values import Address, Secret

PROGRAMS = (MainSettings, ServeSettings, WorkerSettings, AdminKeySettings)


def refused(arguments, environ=None, load=load_main):
    with pytest.raises(StartupError) as caught:
        load(arguments, environ or {})
    assert caught.value.code == "bad_flag"
    assert "\n" not in caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize(
    "arguments",
    [
        ["-rest-addr=:9"],
        ["-rest-addr", ":9"],
        ["--rest-addr=:9"],
        ["--rest-addr", ":9"],
        ["", "-rest-addr", ":9", ""],
        ["-rest-addr=:8", "-rest-addr=:9"],
        ["-dev=false", "-rest-addr", ":9"],
        ["-public-schemas", "-rest-addr", ":9"],
        ["-public-schemas", "true", "-rest-addr", ":9"],
    ],
)
def test_spellings(arguments):
    assert load_main(arguments, {}).rest_addr == Address("0.0.0.0", 9)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ([], True),
        (["-meta-sidecar"], True),
        (["-meta-sidecar=true"], True),
        (["-meta-sidecar=false"], False),
        (["-meta-sidecar=0"], False),
        (["--meta-sidecar", "false"], False),
        (["-meta-sidecar="], True),
    ],
)
def test_bool_spellings(arguments, value):
    assert load_worker(arguments, {}).meta_sidecar is value


def test_command_line_before_environment_before_default():
    assert load_worker([], {}).cache_bytes == 256 * 2**20
    assert load_worker([], {"DELTADB_CACHE_BYTES": "1MiB"}).cache_bytes == 2**20
    assert load_worker(["-cache-bytes=2MiB"], {"DELTADB_CACHE_BYTES": "1MiB"}).cache_bytes == 2**21


def test_an_empty_value_counts_as_not_given():
    assert load_worker(["-cache-bytes="], {"DELTADB_CACHE_BYTES": "1MiB"}).cache_bytes == 2**20
    assert load_worker(["-cache-bytes", "", "-cache-size=7"], {"DELTADB_CACHE_BYTES": ""}).cache_size == 7
    assert load_main(["-admin-key", ""], {"ADMIN_KEY": ""}).admin_key is None


def test_a_value_may_begin_with_a_dash_unless_it_is_a_flag():
    assert load_main(["-key-id", "-7"], {}).key_id == "-7"
    assert load_main(["-admin-key", "-h-and-14-more-of-them"], {}).admin_key == Secret(
        "-h-and-14-more-of-them"
    )
    assert "-admin-key: a value is missing" in refused(["-admin-key", "-rest-addr", ":9"])
    assert "-admin-key: a value is missing" in refused(["-admin-key"])


def test_an_alias_is_the_same_flag():
    for arguments, environ in (
        (["-data=/x"], {}),
        (["-shared-fs", "/x"], {}),
        ([], {"DELTADB_DATA": "/x"}),
        ([], {"DELTADB_SHARED_FS": "/x"}),
    ):
        assert str(load_serve(arguments, environ).shared_fs) == "/x"
        assert str(load_main(arguments, environ).shared_fs) == "/x"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-rest-adr=:9"], "unknown flag -rest-adr (did you mean -rest-addr?)"),
        (["-rest_addr=:9"], "did you mean -rest-addr?"),
        (["-qqqqqq"], "unknown flag -qqqqqq (-h lists all)"),
        (["-a\nb"], "unknown flag -a\\nb"),
        (["stray"], "unexpected argument at the start"),
        (["-dev=false", "no"], "unexpected argument after -dev"),
        (["---dev"], "unexpected argument"),
        (["--"], "unexpected argument"),
        (["-"], "unexpected argument"),
        (["-client-ttl=5"], "-client-ttl: '5' is not a duration such as 500ms, 1h30m, 24h or 7d"),
        (["-client-ttl=0"], "-client-ttl: '0' is less than 1s"),
        (["-rest-max-body-size=1"], "-rest-max-body-size: '1' is less than 1KiB"),
        (["-grpc-max-recv-msg-size=2GiB"], "'2GiB' is more than 1GiB"),
        (["-dev=maybe"], "-dev: 'maybe' is neither true nor false"),
        (["-log-level=loud"], "-log-level: 'loud' is none of debug, info, warning, error"),
        (["-rest-addr=8080"], "-rest-addr: '8080' is not an address"),
        (["-shared-fs=a\0b"], "-shared-fs: 'a\\x00b' is not a path"),
        (["-client-ttl=" + "x" * 5000], "-client-ttl: 'xxx"),
    ],
)
def test_one_clear_line(arguments, words):
    detail = refused(arguments)
    assert words in detail
    assert len(detail) < 200


def test_the_environment_is_named_when_it_is_wrong():
    assert refused([], {"DELTADB_CLIENT_TTL": "x"}).startswith("DELTADB_CLIENT_TTL: 'x' is not a duration")


@pytest.mark.parametrize("arguments", [["s3cret-value"], ["-admin-key=", "s3cret-value"]])
def test_an_argument_without_flag_is_not_repeated(arguments):
    assert "s3cret" not in refused(arguments)


def test_secret_from_a_file(tmp_path):
    file = tmp_path / "key"
    file.write_text("from-a-file-of-mine\n")
    assert load_main([f"-admin-key-file={file}"], {}).admin_key == Secret("from-a-file-of-mine")
    assert load_main([], {"ADMIN_KEY_FILE": str(file)}).admin_key == Secret("from-a-file-of-mine")
    assert load_main(["-admin-key-file", str(file)], {"ADMIN_KEY": "env"}).admin_key == Secret(
        "from-a-file-of-mine"
    )
    assert load_main(["-admin-key=line-line-line-line"], {"ADMIN_KEY_FILE": str(file)}).admin_key == Secret(
        "line-line-line-line"
    )


def test_a_secret_has_one_source(tmp_path):
    file = tmp_path / "key"
    file.write_text("x")
    assert "choose one" in refused(["-admin-key=a", f"-admin-key-file={file}"])
    detail = refused([], {"ADMIN_KEY": "a", "ADMIN_KEY_FILE": str(file)})
    assert detail == "ADMIN_KEY and ADMIN_KEY_FILE are both given: choose one"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no secret"),
        (b"\n", "holds no secret"),
        (b"a" * 70_000, "holds no secret"),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_bad_secret_files(tmp_path, content, words):
    file = tmp_path / "hidden-place"
    if content is not None:
        file.write_bytes(content)
    detail = refused([f"-join-token-file={file}"])
    assert detail.startswith("-join-token-file: ")
    assert words in detail
    assert "hidden-place" not in detail


@pytest.mark.parametrize("spelling", ["-h", "--h", "-help", "--help"])
def test_help_is_asked_for_before_anything_is_refused(spelling):
    with pytest.raises(Asked) as caught:
        load_main(["-rest-addr", ":9", spelling, "-nonsense"], {"DELTADB_CLIENT_TTL": "x"})
    assert caught.value.topic == "help"


def test_version_is_asked_for():
    with pytest.raises(Asked) as caught:
        load_main(["-version"], {})
    assert caught.value.topic == "version"


@pytest.mark.parametrize("program", PROGRAMS)
def test_declarations_are_sound(program):
    declared = [flag for _, flag in flags_of(program)]
    names = [name for flag in declared for name in (flag.name, *flag.aliases)]
    variables = [name for flag in declared for name in flag.env_names]
    assert len(set(names)) == len(names)
    assert len(set(variables)) == len(variables)
    for flag in declared:
        assert flag.help or flag.hidden
        assert flag.hidden or (flag.help[0].islower() or flag.help[0].isupper() or flag.help[0].isdigit())
        assert not flag.name.endswith("-file")


def test_named_environment_variables():
    variables = {flag.name: flag.env for _, flag in flags_of(MainSettings)}
    assert {name: env for name, env in variables.items() if not env.startswith("DELTADB_")} == {
        "master-key": "MASTER_KEY",
        "master-key-previous": "MASTER_KEY_PREVIOUS",
        "admin-key": "ADMIN_KEY",
        "join-token": "JOIN_TOKEN",
        "s3-endpoint": "S3_ENDPOINT",
        "s3-bucket": "S3_BUCKET",
        "s3-access-key": "S3_ACCESS_KEY",
        "s3-secret-key": "S3_SECRET_KEY",
        "otlp-endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    }
    assert variables["rest-max-body-size"] == "DELTADB_REST_MAX_BODY_SIZE"


def test_description_hides_secrets_and_what_is_without_effect():
    settings = load_main(
        ["-admin-key=hunter2-hunter2-h", "-key-store=x", "-client-ttl=90m", "-rest-addr=:9"], {}
    )
    shown = describe(settings)
    assert "hunter2" not in str(shown)
    assert shown["admin-key"] == "set"
    assert shown["master-key"] == ""
    assert shown["client-ttl"] == "1h30m"
    assert shown["rest-max-body-size"] == "1MiB"
    assert "key-store" not in shown
    assert describe(settings, changed_only=True) == {
        "admin-key": "set",
        "client-ttl": "1h30m",
        "rest-addr": "0.0.0.0:9",
    }


def test_settings_hide_secrets_in_repr():
    assert "hunter2" not in repr(load_main(["-admin-key=hunter2-hunter2-h"], {}))


@given(st.lists(st.text(max_size=20), max_size=4))
def test_any_arguments_are_settings_or_one_line(arguments):
    try:
        load_worker(arguments, {}, host_name="host")
    except StartupError as exc:
        assert exc.detail.isprintable()
    except Asked:
        pass


@given(st.sampled_from([flag for _, flag in flags_of(MainSettings)]), st.text(max_size=30))
def test_any_value_is_taken_or_refused_in_one_line(flag, text):
    try:
        load_main([f"-{flag.name}={text}"], {})
    except StartupError as exc:
        assert exc.detail.isprintable()
        if flag.is_secret and len(text) > 8:
            assert text not in exc.detail


# -- plain arguments -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "arguments", "plain"),
    [
        (PutSettings, ["notes", "a"], ("notes", "a")),
        (PutSettings, ["notes", "-create", "a", "-if-match", "x", "-"], ("notes", "a", "-")),
        (PutSettings, ["-document=-1", "notes", "", "a"], ("notes", "a")),
        (PutSettings, ["-create", "--", "notes", "-url"], ("notes", "-url")),
        (DeleteSettings, ["notes", "a", "b", "c"], ("notes", "a", "b", "c")),
        (PlainSettings, [], ()),
    ],
)
def test_plain_arguments_stand_anywhere(program, arguments, plain):
    assert load_command(program, arguments, {}).arguments == plain


@pytest.mark.parametrize(
    ("program", "arguments", "word"),
    [
        (PutSettings, [], "SCHEMA"),
        (PutSettings, ["notes"], "KEY"),
        (PutSettings, ["notes", "a", "b", "hunter2"], "more arguments"),
        (DeleteSettings, ["notes"], "KEY"),
        (PlainSettings, ["hunter2"], "unexpected argument"),
    ],
)
def test_too_few_and_too_many_arguments_are_told_and_not_repeated(program, arguments, word):
    told = refused(arguments, load=lambda given, environ: load_command(program, given, environ))
    assert word in told and "hunter2" not in told
