# The turns of an interactive session. host.py runs this text in a namespace of its own once it knows that the session
# is one, and calls `serve`.
#
# From the runner come messages as the first one was: two strings are a turn (its number and its code), one is the number
# of a turn to interrupt, and SIGINT follows it; SIGURG, too, if the turn goes on. Towards the runner: kind "T", and as
# payload the number in four bytes and the report, which protocol::Turned describes.

import _signal
import _thread
import builtins
import os
import select
import sys
from _ast import Expr, Expression

# Flags of compile(); what a `from __future__ import` leaves behind in a code object; a coroutine's code.
ONLY_AST, TOP_LEVEL_AWAIT = 0x400, 0x2000
FUTURES, COROUTINE = 0x1FE0000, 0x80
# A text is cut above this many characters, so that one of each always fits into a report.
MAX_TEXT = 64 * 1024
# Turns whose lines are kept for tracebacks.
MAX_SOURCES = 200
# What a report needs beside its representations, and the name of an error at most.
ENVELOPE, MAX_NAME = 4096, 200
OWN = "<enclave>"
# Seconds until an interrupt that was lost is tried again.
LATER = 0.01


class Interrupts:
    """Turns SIGINT into KeyboardInterrupt, in the turn that it is meant for and in no other.

    The message in front of each signal has the turn's number, so one that comes late does nothing.
    """

    def __init__(self, channel, receive):
        self.receive, self.process = receive, os.getpid()
        self.turn, self.rung, self.looking, self.hit, self.lost = None, False, False, False, False
        self.main, self.unraisable = _thread.get_ident(), sys.unraisablehook
        sys.unraisablehook = self.swallowed
        self.poll = select.poll()
        self.poll.register(channel, select.POLLIN)

    def begin(self, turn):
        # The turn before may have left another handler.
        _signal.signal(_signal.SIGINT, self.ring)
        self.turn, self.hit, self.lost = turn, False, False
        if self.rung:
            self.ring()

    def end(self):
        self.turn = None

    def ring(self, *_):
        if os.getpid() != self.process:
            raise KeyboardInterrupt
        if self.turn is None:
            self.rung = True
        elif not self.looking and (self.is_meant() or self.lost):
            self.hit, self.lost = True, False
            raise KeyboardInterrupt

    def swallowed(self, info):
        """It came where nothing can be raised, in a callback of the interpreter's own: once more, a little later."""
        if self.turn is None or not self.hit or not isinstance(info.exc_value, KeyboardInterrupt):
            return self.unraisable(info)
        self.lost = True
        try:
            _thread.start_new_thread(self.again, (self.turn,))
        except RuntimeError:
            self.unraisable(info)

    def again(self, turn):
        while self.lost and self.turn == turn:
            _signal.pthread_kill(self.main, _signal.SIGINT)
            select.select((), (), (), LATER)

    def is_meant(self):
        self.rung, meant = False, False
        self.looking = True
        try:
            while self.poll.poll(0):
                meant |= int(self.receive()[0]) == self.turn
        except OSError:
            return True
        finally:
            self.looking = False
        return meant


class Sources:
    """The lines of the last turns, where tracebacks and `inspect` look for them."""

    def __init__(self):
        import linecache

        self.cache, self.names = linecache.cache, []

    def add(self, name, source):
        self.cache[name] = (len(source), None, source.splitlines(True), name)
        self.names.append(name)
        if len(self.names) > MAX_SOURCES:
            self.cache.pop(self.names.pop(0), None)


class Evaluator:
    """Runs pieces of code in one namespace."""

    def __init__(self, namespace):
        self.namespace, self.flags, self.loop = namespace, TOP_LEVEL_AWAIT, None

    def evaluate(self, source, name):
        """The value of the last expression, if the last statement is one and no semicolon follows it."""
        tree = compile(source, name, "exec", self.flags | ONLY_AST, dont_inherit=True)
        last = None
        if tree.body and isinstance(tree.body[-1], Expr) and not source.rstrip().endswith(";"):
            last = Expression(tree.body.pop().value)
        self.run(tree, name, "exec")
        return None if last is None else self.run(last, name, "eval")

    def run(self, tree, name, mode):
        code = compile(tree, name, mode, self.flags, dont_inherit=True)
        self.flags |= code.co_flags & FUTURES
        value = eval(code, self.namespace)
        return self.wait(value) if code.co_flags & COROUTINE else value

    def wait(self, coroutine):
        # An interrupted import leaves half of a package behind, and each later one of it fails.
        before = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT,))
        try:
            import asyncio
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            if task.done():
                # Or asyncio would complain that nobody asked.
                task.cancelled() or task.exception()
            else:
                task.cancel()
                try:
                    self.loop.run_until_complete(task)
                except asyncio.CancelledError:
                    pass
            raise


class Report:
    """What is told of a turn. Whatever the values and errors of the turn do or hold, it stays below its limit."""

    def __init__(self, limit, enclave):
        self.left, self.enclave = limit - ENVELOPE, enclave
        self.forms, self.notes = {}, []

    def encode(self, value):
        return self.enclave._dump(value).encode("utf-8", "replace")

    def offer(self, kind, encoded):
        if len(encoded) > self.left:
            self.notes.append(f"{kind} of {len(encoded)} bytes left out: more than a turn can report")
        else:
            self.left -= len(encoded)
            self.forms[kind] = encoded

    def value(self, value):
        """Takes the forms that it offers."""
        text = self.encode(shown(repr, value))
        # Its place is kept for it, and for what may have to be said about the others.
        self.left -= len(text)
        if is_figure(value):
            self.picture(value)
        for kind, data in rich(value).items():
            self.rich(kind, data)
        self.forms["text/plain"] = text

    def rich(self, kind, data):
        if kind in self.forms:
            return
        if kind == "image/png" and isinstance(data, (bytes, bytearray)):
            data = self.base64(data)
        wanted = (dict, list) if kind == "application/json" else str
        if not isinstance(data, wanted):
            return
        try:
            self.offer(kind, self.encode(data) if wanted is str else self.enclave._encode(data))
        except (TypeError, ValueError) as error:
            self.notes.append(f"{kind} left out: {cut(str(error).removeprefix('enclave.result: '), MAX_NAME)}")

    def base64(self, data):
        if len(data) * 4 // 3 > self.left:
            self.notes.append(f"image/png of {len(data)} bytes left out: more than a turn can report")
            return None
        from binascii import b2a_base64

        return b2a_base64(data, newline=False).decode()

    def picture(self, figure):
        from io import BytesIO

        try:
            file = BytesIO()
            figure.savefig(file, format="png", bbox_inches="tight")
            self.rich("image/png", file.getvalue())
        except Exception as error:
            self.notes.append(f"image/png left out: savefig failed: {type(error).__name__}: {shown(str, error)[:MAX_NAME]}")

    def figures(self):
        """Takes the figure that the turn has left open in pyplot, and closes all of them."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        numbers = pyplot.get_fignums() if pyplot and hasattr(pyplot, "get_fignums") else []
        if not numbers:
            return
        try:
            if "image/png" not in self.forms:
                figure = pyplot.figure(numbers[-1])
                self.forms.setdefault("text/plain", self.encode(shown(repr, figure)))
                self.picture(figure)
                if numbers[1:]:
                    self.notes.append(f"the last of {len(numbers)} figures: a turn reports one picture")
        finally:
            pyplot.close("all")

    def finish(self, status, error=None):
        if self.notes:
            text = self.forms.get("text/plain", b'""')
            notes = self.encode("".join(f"\n[{note}]" for note in self.notes))
            self.forms["text/plain"] = text[:-1] + notes[1:]
        forms = b",".join(b'"%s":%s' % (kind.encode(), data) for kind, data in self.forms.items())
        value = b"{%s}" % forms if forms else b"null"
        return b'{"status":"%s","value":%s,"error":%s}' % (status, value, error or b"null")


def is_figure(value):
    return str(type(value).__module__).partition(".")[0] == "matplotlib" and hasattr(value, "savefig")


def rich(value):
    """What it offers beside its repr. What it fails to make, it does not offer."""
    if isinstance(value, type):
        return {}
    offered = {}
    for method, kind in (
        ("_repr_mimebundle_", None),
        ("_repr_png_", "image/png"),
        ("_repr_html_", "text/html"),
        ("_repr_json_", "application/json"),
    ):
        try:
            call = getattr(value, method, None)
            data = call() if callable(call) else None
            data = data[0] if isinstance(data, tuple) else data
            if kind is not None:
                offered.setdefault(kind, data)
            elif isinstance(data, dict):
                kinds = ("image/png", "text/html", "application/json")
                offered.update({kind: data[kind] for kind in kinds if kind in data})
        except Exception:
            continue
    return offered


def cut(text, limit):
    left = len(text) - limit
    return text if left <= 0 else f"{text[:limit]}… ({left} more characters)"


def shown(how, value):
    """Its repr or str, whatever that does."""
    try:
        return cut(how(value), MAX_TEXT)
    except Exception as error:
        return f"<{how.__name__} failed: {type(error).__name__}>"


def described(error, encode):
    """Name, value and traceback, from the turn's own code on."""
    import traceback

    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<turn "):
        trace = trace.tb_next
    at = trace
    while at is not None and at.tb_next is not None:
        if at.tb_next.tb_frame.f_code.co_filename == OWN:
            # Where the interrupt was raised.
            at.tb_next = None
        at = at.tb_next
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace))
    except Exception as second:
        lines = f"<traceback failed: {type(second).__name__}>"
    if len(lines) > MAX_TEXT:
        half = MAX_TEXT // 2
        lines = f"{lines[:half]}\n… ({len(lines) - MAX_TEXT} characters left out)\n{lines[-half:]}"
    parts = {"name": cut(type(error).__name__, MAX_NAME), "value": shown(str, error), "traceback": lines}
    return encode(parts)


class Turns:
    def __init__(self, namespace, interrupts, limit, enclave):
        self.interrupts, self.limit, self.enclave = interrupts, limit, enclave
        self.sources, self.evaluator = Sources(), Evaluator(namespace)

    def run(self, number, code):
        """Runs a turn and gives its report. An interrupt may come at any moment until this returns."""
        report, begun = None, False
        while True:
            try:
                if begun:
                    self.interrupts.end()
                    return report or self.failed(b"interrupted", KeyboardInterrupt())
                begun = True
                self.interrupts.begin(number)
                report = self.report(f"<turn {number}>", code)
            except KeyboardInterrupt:
                pass

    def report(self, name, code):
        report = Report(self.limit, self.enclave)
        try:
            self.sources.add(name, code)
            value = self.evaluator.evaluate(code, name)
            if value is not None:
                builtins._ = value
                report.value(value)
            report.figures()
            return report.finish(b"completed")
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt) and self.interrupts.hit
            return self.failed(b"interrupted" if interrupted else b"failed", error)
        finally:
            flush()

    def failed(self, status, error):
        report = Report(self.limit, self.enclave)
        return report.finish(status, described(error, report.encode))

    def leave_as_a_child(self, report):
        """A process that a turn has forked and that came to the turn's end is done."""
        flush()
        os._exit(0 if report.startswith(b'{"status":"completed"') else 1)


def flush():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except Exception:
            pass


class Quiet:
    """Matches the warning of a `show()` that has nothing to show itself on: the picture is shown all the same."""

    @staticmethod
    def match(text):
        return text.startswith(("FigureCanvasAgg is non-interactive", "Matplotlib is currently using agg"))


def install():
    """What makes what a turn installs available to those behind it, and pictures out of figures."""
    import warnings

    warnings.filters.insert(0, ("ignore", Quiet, UserWarning, None, 0))
    getattr(warnings, "_filters_mutated", bool)()
    os.environ.setdefault("MPLBACKEND", "Agg")
    # Nothing but this session's own directory can be broken.
    os.environ.setdefault("PIP_BREAK_SYSTEM_PACKAGES", "1")
    base = os.environ.get("PYTHONUSERBASE") or os.path.expanduser("~/.local")
    user = os.path.join(base, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    packages = [at for at, path in enumerate(sys.path) if path.endswith("-packages")]
    sys.path.insert(packages[0] if packages else len(sys.path), user)


def look_again():
    """Forgets which modules there were: a turn may have installed more."""
    for path, finder in list(sys.path_importer_cache.items()):
        if finder is None:
            del sys.path_importer_cache[path]
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()


def interrupts(channel, receive):
    """From now on SIGINT ends nothing but turns."""
    made = Interrupts(channel, receive)
    _signal.signal(_signal.SIGINT, made.ring)
    # A turn that goes on is reminded of its interrupt by this, which ends the system call that it is in: a signal that came
    # in front of that has not been seen yet.
    _signal.signal(_signal.SIGURG, lambda *_: None)
    return made


def serve(namespace, interrupts, receive, send, limit, enclave):
    """Runs turns until the runner ends this process."""
    turns = Turns(namespace, interrupts, limit, enclave)
    import traceback  # So that no turn has to wait for it.

    while True:
        message = receive()
        if len(message) == 1:
            continue
        number, code = int(message[0]), message[1]
        look_again()
        report = turns.run(number, code)
        if os.getpid() != interrupts.process:
            turns.leave_as_a_child(report)
        try:
            send(number.to_bytes(4, "big") + report, b"T")
        except RuntimeError as error:
            os.write(2, f"enclave: {error}\n".encode())
            os._exit(1)
