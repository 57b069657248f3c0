"""The session that this program runs in: hand in a result, look up bindings, read the input.

There without import in the program itself; `import enclave` works too.
"""

import os as _os

__all__ = ["binding", "result", "session_id"]

session_id = _os.environ.get("ENCLAVE_SESSION_ID")

_input_file = _os.path.join(_os.getcwd(), "input.json")

# Set by the session's first process, the only one that holds the channel to the runner.
_send = None
_max_result_bytes = 0

# Deeper values are legal JSON, but many parsers refuse them.
_MAX_DEPTH = 100


def result(value):
    """Make `value` the structured result of the session. It must be serialisable as JSON; the last call counts."""
    if _send is None:
        raise RuntimeError("enclave.result works in the session's first process: hand the value back to it")
    encoded = _encode(value)
    if len(encoded) > _max_result_bytes:
        raise ValueError(f"enclave.result: {len(encoded)} bytes of JSON, at most {_max_result_bytes} are allowed")
    _send(encoded)


def binding(name):
    """The base URL of the service binding `name`."""
    url = _os.environ.get("ENCLAVE_SVC_" + str(name).upper().replace("-", "_"))
    if url is None:
        raise KeyError(f"this session has no service binding named {name!r}")
    return url


def __getattr__(name):
    if name != "input":
        raise AttributeError(f"module 'enclave' has no attribute {name!r}")
    # What the session was given as /workspace/input.json; None if it was given nothing.
    try:
        with open(_input_file, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    import json

    try:
        value = globals()["input"] = json.loads(text)
    except ValueError as error:
        raise ValueError(f"enclave.input: {_input_file} is not JSON: {error}") from None
    return value


def _encode(value):
    try:
        text = _dump(value)
        # Counting brackets is cheap; only what could be deep is walked.
        if text.count("[") + text.count("{") > _MAX_DEPTH:
            _refuse_deep(value)
        return text.encode()
    except RecursionError:
        raise ValueError(f"enclave.result: nested deeper than {_MAX_DEPTH} levels") from None
    except UnicodeEncodeError:
        raise ValueError("enclave.result: a string holds an unpaired surrogate, which JSON cannot carry") from None
    except ValueError as error:
        raise ValueError(f"enclave.result: {error}") from None
    except TypeError as error:
        raise TypeError(f"enclave.result: {error}") from None


def _dump(value):
    # The C encoder alone: importing the json package costs several milliseconds, most of them for its decoder.
    try:
        from _json import encode_basestring, make_encoder

        encode = make_encoder({}, _refuse, encode_basestring, None, ":", ",", False, False, False)
    except (ImportError, TypeError):
        import json

        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_refuse)
    return "".join(encode(value, 0))


def _refuse(value):
    raise TypeError(f"{type(value).__name__} is not JSON serialisable")


def _refuse_deep(value):
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [part for item in level for part in _parts(item) if isinstance(part, (dict, list, tuple))]
        if not level:
            return
    raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")


def _parts(item):
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, (list, tuple)) else ()
