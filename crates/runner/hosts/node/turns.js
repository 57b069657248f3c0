// The turns of an interactive session, as an expression: the function that host.js calls once it knows that the session
// is one.
//
// From the runner come messages as the first one was: two strings are a turn (its number and its code), one is the number
// of a turn to interrupt, and one SIGINT follows it. Towards the runner: kind "T", and as payload the number in four bytes and
// the report, which protocol::Turned describes.
//
// V8 evaluates each piece of code in its mode for consoles, which the inspector's protocol leads to: what one piece
// declares the others see, and may declare again; `await` may stand anywhere; the value is that of the last expression.
(host) => {
  'use strict';
  const { builtin, signals, started, send, writeAll, strings, importer, encode, limit } = host;

  const hide = (name, value) => Object.defineProperty(globalThis, name, { value, configurable: true });
  const { interruptible, wasInterrupted, isInside, hasSeen, announced, awaitAnnounced } = signals(builtin, hide);
  // From now on a signal ends nothing but turns.
  started();

  const fs = builtin('fs');
  const vm = builtin('vm');
  const { inspect, types } = builtin('util');
  const { stringify } = JSON;
  const { promiseHooks } = builtin('v8');
  const { then } = Promise.prototype;

  // A text is cut above this many characters, so that one of each always fits into a report.
  const MAX_TEXT = 64 * 1024;
  // What a report needs beside its representations.
  const ENVELOPE = 4096;
  const VALUE = Symbol.for('enclave.value');
  const GATE = Symbol.for('enclave.gate');
  const PREFIX = `(await globalThis[Symbol.for('${GATE.description}')])();`;
  const IMPORT = "globalThis[Symbol.for('enclave.import')]";

  const session = new (builtin('inspector').Session)();
  hide(Symbol.for('enclave.import'), importer);

  // `import` leads nowhere in such code, so calls of it are led to what can import. Texts and comments stay as they are.
  const CALLS =
    /(\/\/[^\n]*|\/\*[\s\S]*?\*\/|'(?:\\[\s\S]|[^'\\\n])*'|"(?:\\[\s\S]|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`)|(?<![\w$.])import(\s*\()/g;
  const STATEMENTS =
    /((?:^|;)[ \t]*)import\b\s*(?:([\w$]+)\s*(?:,\s*)?)?(?:\*\s*as\s+([\w$]+)\s*|\{([^}]*)\}\s*)?(?:from\s*)?(['"][^'"\n]+['"])/gm;

  function withCalls(code) {
    return code.replace(CALLS, (whole, other, call) => (other === undefined ? IMPORT + call : whole));
  }

  function withStatements(code) {
    return code.replace(STATEMENTS, (whole, before, own, all, names, specifier) => {
      const imported = `await ${IMPORT}(${specifier})`;
      const parts = [];
      if (all) parts.push(`const ${all} = ${imported};`);
      const picked = names?.split(',').map((name) => name.trim().replace(/\s+as\s+/, ': ')) ?? [];
      if (own) picked.unshift(`default: ${own}`);
      if (picked.length > 0) parts.push(`const {${picked.filter(Boolean).join(', ')}} = ${imported};`);
      if (parts.length === 0) parts.push(`${imported};`);
      // Each line stays where it was.
      return before + parts.join(' ') + '\n'.repeat(whole.split('\n').length - 1);
    });
  }

  function prepare(code) {
    const text = /\bimport\s*\(/.test(code) ? withCalls(code) : code;
    if (!/^\s*\{/.test(text) || /;\s*$/.test(text)) return text;
    try {
      new vm.Script(`(${text}\n)`);
      return `(${text}\n)`;
    } catch {
      return text;
    }
  }

  const needsModule = (details) =>
    details?.exception?.className === 'SyntaxError' &&
    details.exception.description.startsWith('SyntaxError: Cannot use import statement');

  // Compiles the code, which then waits at its gate. V8's inspector does not bear being interrupted, and is gone before any
  // of the code runs. Gives the promise of what the code comes to and what opens the gate, or why it does not compile.
  function compile(code, name) {
    let open;
    hide(GATE, new Promise((resolve) => (open = resolve)));
    let promise;
    let answer;
    session.connect();
    const post = (text) => {
      const expression = `${PREFIX}${text}\n//# sourceURL=${name}`;
      // The first promise that there is then is the one for the whole.
      const stop = promiseHooks.onInit((made) => (promise ??= made));
      session.post('Runtime.evaluate', { expression, replMode: true }, (...all) => (answer ??= all));
      stop();
    };
    try {
      post(prepare(code));
      if (needsModule(answer?.[1]?.exceptionDetails)) {
        promise = answer = undefined;
        post(withStatements(withCalls(code)));
      }
      if (answer === undefined) return { open, promise };
      const [error, response] = answer;
      if (error) return { thrown: new Error(error.message) };
      const { result, exceptionDetails: details } = response;
      return { thrown: real(details?.exception ?? result), details };
    } finally {
      session.disconnect();
    }
  }

  // The error that V8 speaks of.
  function real({ objectId }) {
    let value;
    hide(VALUE, (it) => (value = it));
    const functionDeclaration = "function () { 'use strict'; globalThis[Symbol.for('enclave.value')](this) }";
    session.post('Runtime.callFunctionOn', { objectId, functionDeclaration });
    return value;
  }

  const clean = (text) => text.replace(/\p{Surrogate}/gu, '\uFFFD');
  const json = (text) => stringify(clean(text));

  function cut(text, most = MAX_TEXT) {
    const left = text.length - most;
    return left <= 0 ? text : `${text.slice(0, most)}… (${left} more characters)`;
  }

  function shown(value) {
    try {
      return cut(inspect(value));
    } catch (error) {
      return `<inspect failed: ${kind(error)}>`;
    }
  }

  const OFFERS = [
    ['_repr_png_', 'image/png'],
    ['_repr_html_', 'text/html'],
    ['_repr_json_', 'application/json'],
  ];

  // What it offers beside its text. What it fails to make, it does not offer.
  function rich(value) {
    const offered = {};
    if (value === null || typeof value !== 'object') return offered;
    const ask = (method) => {
      try {
        return typeof value[method] === 'function' ? value[method]() : undefined;
      } catch (error) {
        if (wasInterrupted(error)) throw error;
        return undefined;
      }
    };
    const bundle = ask('_repr_mimebundle_') ?? {};
    for (const [method, kind] of OFFERS) offered[kind] = bundle[kind] ?? ask(method);
    const plain = Array.isArray(value) || [null, Object.prototype].includes(Object.getPrototypeOf(value));
    if (plain) offered['application/json'] ??= value;
    return offered;
  }

  // The value's forms, as JSON text each. Whatever they are, they stay below the limit of a report.
  function represent(value) {
    if (value === undefined) return undefined;
    const notes = [];
    const text = shown(value);
    const forms = {};
    let left = limit - ENVELOPE - Buffer.byteLength(json(text));
    for (let [kind, data] of Object.entries(rich(value))) {
      if (kind === 'image/png' && data instanceof Uint8Array) data = Buffer.from(data).toString('base64');
      let form;
      if (kind !== 'application/json') {
        if (typeof data !== 'string') continue;
        form = json(data);
      } else {
        if (data === null || typeof data !== 'object') continue;
        try {
          form = encode(data).toString();
        } catch {
          continue;
        }
      }
      const bytes = Buffer.byteLength(form);
      if (bytes > left) {
        notes.push(`\n[${kind} of ${bytes} bytes left out: more than a turn can report]`);
      } else {
        left -= bytes;
        forms[kind] = form;
      }
    }
    forms['text/plain'] = json(text + notes.join(''));
    return forms;
  }

  function kind(error) {
    try {
      return cut(String(error.name ?? error.constructor.name), 200);
    } catch {
      return 'Error';
    }
  }

  // The lines of a stack that are the session's own, with the columns that they have there.
  function own(stack) {
    const lines = stack.split('\n');
    const end = lines.findIndex((line) => /^\s+at .*(?:\bnode:enclave\b|\[as _tickCallback\])/.test(line));
    const column = (whole, before, file, line, number) =>
      pieces.test(file) ? before + file + line + Math.max(1, number - PREFIX.length) : whole;
    const shift = (line) => line.replace(/^(\s+at (?:.*\()?)(.*)(:1:)(\d+)/, column);
    return (end < 0 ? lines : lines.slice(0, end)).map(shift).join('\n');
  }

  function describe(thrown, details, code, name) {
    let [title, value, traceback] = ['Uncaught', '', ''];
    try {
      if (types.isNativeError(thrown) || thrown instanceof Error) {
        [title, value] = [kind(thrown), String(thrown.message)];
        traceback = own(String(thrown.stack));
      } else {
        value = shown(thrown);
        traceback = `Uncaught ${value}`;
      }
      if (details) {
        // The stack of what does not compile does not say where.
        const { lineNumber: line, columnNumber: column } = details;
        const at = Math.max(0, Math.min(column - (line === 0 ? PREFIX.length : 0), 500));
        const source = code.split('\n')[line] ?? '';
        traceback = `${name}:${line + 1}\n${cut(source, 500)}\n${' '.repeat(at)}^\n${traceback}`;
      }
    } catch (error) {
      if (wasInterrupted(error)) throw error;
      value ||= `<an error that cannot be told: ${kind(error)}>`;
    }
    return { name: title, value: cut(value), traceback: cut(traceback) };
  }

  const INTERRUPTED = { name: 'Interrupted', value: 'execution was terminated', traceback: '' };
  let current;
  let last;
  // Which files of a stack trace are pieces of code of the session.
  let pieces;

  // Writes at once. What Node keeps of a stream's state does not bear being interrupted: nothing would be written any more.
  function writeDirectly(stream, descriptor) {
    stream.write = (chunk, encoding, done) => {
      const written = typeof encoding === 'function' ? encoding : done;
      const bytes = typeof chunk === 'string' ? Buffer.from(chunk, done && encoding) : chunk;
      if (!(bytes instanceof Uint8Array)) throw new TypeError('a chunk is a string, a Buffer or a Uint8Array');
      let failure;
      try {
        writeAll(descriptor, bytes);
      } catch (error) {
        failure = error;
      }
      if (written) process.nextTick(written, failure);
      return failure === undefined;
    };
  }

  function run(number, code, name, end) {
    let outcome;
    let concluded = false;
    const settle = (...told) => (outcome ??= told);
    const interrupted = () => settle('interrupted', undefined, INTERRUPTED);
    // Out of reach of an interrupt.
    const conclude = () => {
      if (isInside() || concluded || outcome === undefined) return;
      // A child that the same signal has ended may have been quicker.
      if (outcome[0] === 'failed') look(true);
      if (concluded) return;
      concluded = true;
      current = undefined;
      end(...outcome);
    };
    // An interrupt is for a turn, which may wait behind the prelude.
    const call = number === '' ? (step) => step() : interruptible;
    const guarded = (step) => {
      try {
        if (!isInside()) look();
        if (outcome === undefined) call(step);
      } catch (error) {
        if (wasInterrupted(error)) interrupted();
        else settle('failed', undefined, describe(error));
      }
      conclude();
    };
    const failed = (thrown, details) =>
      guarded(() => settle('failed', undefined, describe(thrown, details, code, name)));
    const completed = (value) =>
      guarded(() => {
        const forms = represent(value);
        if (value !== undefined && (!('_' in globalThis) || Object.is(globalThis._, last))) {
          last = value;
          Object.defineProperty(globalThis, '_', { value, writable: true, configurable: true });
        }
        settle('completed', forms);
      });
    current = {
      number,
      interrupt() {
        if (outcome?.[0] === 'failed') outcome = undefined;
        interrupted();
        conclude();
      },
    };
    const { open, promise, thrown, details } = compile(code, name);
    if (open === undefined) return failed(thrown, details);
    const told = ({ '.repl_result': value }) => {
      if (types.isPromise(value)) Reflect.apply(then, value, [completed, (error) => failed(error)]);
      else completed(value);
    };
    Reflect.apply(then, promise, [told, (error) => failed(error)]);
    guarded(() => {
      // What was interrupted before it began does not begin.
      open(() => {
        if (outcome !== undefined) throw new Error(INTERRUPTED.value);
      });
      process._tickCallback?.();
    });
  }

  function report(number, status, forms, error) {
    const value = forms && Object.entries(forms).map(([kind, form]) => `"${kind}":${form}`);
    const parts = error && Object.entries(error).map(([name, text]) => `"${name}":${json(text)}`);
    const told = (list) => (list ? `{${list.join(',')}}` : 'null');
    const text = Buffer.from(`{"status":"${status}","value":${told(value)},"error":${told(parts)}}`);
    const message = Buffer.allocUnsafe(4 + text.length);
    message.writeUInt32BE(number);
    message.set(text, 4);
    send('T', message);
  }

  function leave(error) {
    fs.writeSync(2, `enclave: ${error.message}\n`);
    process.reallyExit(1);
  }

  function take([number, code]) {
    if (code === undefined) {
      announced();
      // When it stands here, the turn waits for something, or has ended.
      if (current?.number === number) current.interrupt();
      return;
    }
    awaitAnnounced();
    run(number, code, `turn-${number}`, (status, forms, error) => {
      try {
        report(Number(number), status, forms, error);
      } catch (failure) {
        leave(failure);
      }
    });
  }

  let rest = Buffer.alloc(0);
  // Whether the channel is read without waiting.
  let listening = false;

  // Takes what has come from the runner.
  function feed(chunk) {
    rest = rest.length === 0 ? chunk : chunk.length === 0 ? rest : Buffer.concat([rest, chunk]);
    while (rest.length >= 4) {
      const end = 4 + rest.readUInt32BE();
      if (rest.length < end) break;
      const message = rest.subarray(4, end);
      rest = rest.subarray(end);
      take(strings(message));
    }
  }

  // Is there an interrupt that came when there was nothing that it could interrupt, and was it for the turn that is current?
  function look(closely = false) {
    feed(Buffer.alloc(0));
    const seen = hasSeen();
    if (!listening || !(seen || closely)) return;
    try {
      const chunk = Buffer.alloc(4096);
      const length = fs.readSync(3, chunk);
      if (length > 0) feed(chunk.subarray(0, length));
    } catch {
      // There is no message with it, so it is for none.
    }
  }

  function listen() {
    // Errors that nobody catches end a program. A session goes on.
    process.on('uncaughtException', (error) => {
      const text = types.isNativeError(error) ? own(String(error.stack)) : shown(error);
      process.stderr.write(`Uncaught ${text}\n`);
    });
    const socket = new (builtin('net').Socket)({ fd: 3, readable: true, writable: false });
    listening = true;
    socket.on('data', feed);
    socket.on('error', () => {});
    socket.on('close', () => process.reallyExit(1));
  }

  // Runs the prelude, if there is one, and then turns until the runner ends this process.
  return (prelude, name) => {
    writeDirectly(process.stdout, 1);
    writeDirectly(process.stderr, 2);
    pieces = { test: (file) => file === name || /^turn-\d+$/.test(file) };
    if (prelude === '') return listen();
    run('', prelude, name, (status, forms, error) => {
      if (status === 'completed') return listen();
      process.stderr.write(`${error.traceback || error.value}\n`);
      process.exit(1);
    });
  };
}
