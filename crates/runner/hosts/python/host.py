# The Python language host. The runner starts it ahead of the session, hands it the texts of enclave.py and turns.py as
# ENCLAVE and TURNS, and sends one message over descriptor 3: a 4-byte big-endian length and that many bytes, made of
# strings that each have such a length in front. In order: the largest result in bytes, the session's id, the file that
# the program is (empty when it is text alone), the largest report of a turn in bytes (empty when the program is all that
# there is to run), the number of arguments, the arguments, names and values of the whole environment in turn, and last
# the program.
#
# Towards the runner: one byte of kind ("S" started, "R" result, "T" a turn's report), a 4-byte length, the payload.

import builtins
import os
import sys
from _thread import RLock

CHANNEL = 3


def exactly(count):
    data = bytearray()
    while len(data) < count:
        part = os.read(CHANNEL, min(count - len(data), 1 << 20))
        if not part:
            os._exit(1)
        data += part
    return data


def receive():
    message = exactly(int.from_bytes(exactly(4), "big"))
    strings, at = [], 0
    while at < len(message):
        end = at + 4 + int.from_bytes(message[at : at + 4], "big")
        strings.append(message[at + 4 : end].decode())
        at = end
    return strings


def module(source):
    enclave = type(sys)("enclave")
    sys.modules["enclave"] = builtins.enclave = enclave
    exec(source, enclave.__dict__)
    return enclave


def sender():
    own = os.fstat(CHANNEL)
    process, lock = os.getpid(), RLock()

    def send(payload, kind=b"R"):
        if os.getpid() != process:
            raise RuntimeError("enclave.result works in the session's first process: hand the value back to it")
        with lock:
            try:
                # A program that closed every descriptor may since have opened a file of its own under this number.
                now = os.fstat(CHANNEL)
                if (now.st_dev, now.st_ino) != (own.st_dev, own.st_ino):
                    raise OSError
                rest = memoryview(kind + len(payload).to_bytes(4, "big") + payload)
                while rest:
                    rest = rest[os.write(CHANNEL, rest) :]
            except OSError:
                raise RuntimeError("the program closed its channel to the runner, descriptor 3") from None

    return send


def place(program, names):
    """Writes the program where its own tools expect it (multiprocessing, inspect, __file__); never over a file."""
    for name in names:
        path = os.path.join(os.getcwd(), name)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError:
            continue
        try:
            rest = memoryview(program.encode())
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            return path, True
        except OSError:
            os.unlink(path)
        finally:
            os.close(descriptor)
    return os.path.join(os.getcwd(), names[0]), False


class SpawnedChildren:
    """Lets children of multiprocessing's spawn and forkserver import enclave, too."""

    class Boot:
        def __reduce__(self):
            # The name is bound when the module is made, so that main.py finds it when the child imports it.
            text = "import builtins, sys\nenclave = type(sys)('enclave')\nsys.modules['enclave'] = builtins.enclave = enclave\n"
            return exec, (text + "exec(source, enclave.__dict__)", {"source": ENCLAVE})

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "multiprocessing.spawn":
            return None
        sys.meta_path.remove(cls)
        from importlib.util import find_spec

        spec = find_spec(name)
        load = spec.loader.exec_module

        def exec_module(spawn):
            load(spawn)
            prepare = spawn.get_preparation_data
            spawn.get_preparation_data = lambda process: {**prepare(process), "enclave": cls.Boot()}

        spec.loader.exec_module = exec_module
        return spec


def report(error, program, path, placed):
    error.__traceback__ = trace = error.__traceback__.tb_next
    if not placed and sys.excepthook is sys.__excepthook__:
        import linecache
        import traceback

        linecache.cache[path] = (len(program), None, program.splitlines(True), path)
        traceback.print_exception(error)
        return
    try:
        sys.excepthook(type(error), error, trace)
    except BaseException as second:
        sys.__excepthook__(type(second), second, second.__traceback__)
        sys.__excepthook__(type(error), error, trace)


def run(program, path, placed):
    from _frozen_importlib_external import SourceFileLoader

    main = type(sys)("__main__")
    main.__dict__.update(
        __file__=path, __cached__=None, __builtins__=builtins, __loader__=SourceFileLoader("__main__", path)
    )
    sys.modules["__main__"] = main
    if path is None:
        # No program, only turns: as in Python's own shell.
        del main.__file__, main.__cached__
        return main.__dict__
    try:
        exec(compile(program, path, "exec", dont_inherit=True), main.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        report(error, program, path, placed)
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
    return main.__dict__


def host():
    os.set_inheritable(CHANNEL, False)
    sys.stdout.reconfigure(line_buffering=True)
    enclave = module(ENCLAVE)
    enclave._send = send = sender()
    limit, enclave.session_id, entrypoint, most, count, *rest = receive()
    enclave._max_result_bytes = int(limit)
    program = rest.pop().removeprefix("\ufeff")
    args, env = rest[: int(count)], rest[int(count) :]
    os.environ.clear()
    os.environ.update(zip(env[::2], env[1::2]))
    if "TZ" in os.environ:
        __import__("time").tzset()
    sys.meta_path.insert(0, SpawnedChildren)
    if entrypoint:
        path, placed = os.path.join(os.getcwd(), entrypoint), True
    elif most and not program:
        path, placed = None, False
    else:
        path, placed = place(program, ("main.py", ".enclave-main.py"))
    own = dict.fromkeys((os.path.dirname(path or "") or os.getcwd(), os.getcwd()))
    sys.path[:0] = [*own, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv[:] = [path or "", *args]
    sys.orig_argv[:] = [sys.executable, *sys.argv]
    if not most:
        send(b"", b"S")
        run(program, path, placed)
        return
    turns = {}
    exec(compile(TURNS, "<enclave>", "exec"), turns)
    interrupts = turns["interrupts"](CHANNEL, receive)
    turns["install"]()
    send(b"", b"S")
    turns["serve"](run(program, path, placed), interrupts, receive, send, int(most), enclave)


# Keeps this module's namespace alive when the program's module takes its place.
this = sys.modules["__main__"]
host()
