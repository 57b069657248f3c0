// The Node language host, as an expression: called with `require` and what turns.js and signals.js are, it gives the function
// to run. The runner calls it in `node -e`, or finds it in a start-up snapshot of the image, which has all of this compiled already.
//
// The runner starts it ahead of the session and sends one message over descriptor 3: a 4-byte big-endian length and
// that many bytes, made of strings that each have such a length in front. In order: the largest result in bytes, the
// session's id, the file that the program is (empty when it is text alone), the largest report of a turn in bytes (empty
// when the program is all that there is to run), the number of arguments, the arguments, names and values of the whole
// environment in turn, and last the program.
//
// Towards the runner: one byte of kind ("S" started, "R" result, "T" a turn's report), a 4-byte length, the payload.
((require, turns, signals) => {
  'use strict';
  const fs = require('fs');
  const Module = require('module');
  const { stringify, parse } = JSON;

  const CHANNEL = 3;
  const folder = (file) => file.slice(0, file.lastIndexOf('/'));
  // What is loaded only when it is needed. In a snapshot, `require` itself gives no module any more without a warning.
  const builtin = (name) => Module.createRequire('/')(name);
  // Deeper values are legal JSON, but many parsers refuse them.
  const MAX_DEPTH = 100;

  function exactly(count) {
    const data = Buffer.allocUnsafe(count);
    for (let at = 0; at < count; ) {
      const read = fs.readSync(CHANNEL, data, at, count - at);
      if (read === 0) process.exit(1);
      at += read;
    }
    return data;
  }

  const receive = () => cut(exactly(exactly(4).readUInt32BE()));

  function cut(message) {
    const strings = [];
    for (let at = 0; at < message.length; ) {
      const end = at + 4 + message.readUInt32BE(at);
      strings.push(message.toString('utf8', at + 4, end));
      at = end;
    }
    return strings;
  }

  function send(kind, payload) {
    const message = Buffer.alloc(5 + payload.length, kind);
    message.writeUInt32BE(payload.length, 1);
    message.set(payload, 5);
    writeAll(CHANNEL, message);
  }

  function writeAll(descriptor, bytes) {
    for (let at = 0; at < bytes.length; ) {
      try {
        at += fs.writeSync(descriptor, bytes, at);
      } catch (error) {
        // In an interactive session the event loop holds it as well, and nobody waits for it any more.
        if (error.code !== 'EAGAIN') throw error;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
      }
    }
  }

  function sendChecked(kind, payload) {
    try {
      // A program that closed every descriptor may since have opened a file of its own under this number.
      if (!fs.fstatSync(CHANNEL).isSocket()) throw new Error();
      send(kind, payload);
    } catch {
      throw new Error('the program closed its channel to the runner, descriptor 3');
    }
  }

  function depth(value) {
    let level = [value];
    for (let at = 0; at <= MAX_DEPTH; at += 1) {
      level = level.flatMap((item) => Object.values(item)).filter((item) => item !== null && typeof item === 'object');
      if (level.length === 0) return at + 1;
    }
    return Infinity;
  }

  function encode(value) {
    let brackets = 0;
    let json;
    try {
      json = stringify(value, (key, item) => {
        if (typeof item === 'number' && !Number.isFinite(item)) throw new RangeError(`${item} is not a JSON number`);
        if (/\p{Surrogate}/u.test(key) || (typeof item === 'string' && /\p{Surrogate}/u.test(item))) {
          throw new RangeError('a string holds an unpaired surrogate, which JSON cannot carry');
        }
        if (typeof item === 'object') brackets += 1;
        return item;
      });
    } catch (error) {
      const Kind = error instanceof RangeError ? RangeError : TypeError;
      throw new Kind(`enclave.result: ${error.message}`);
    }
    if (json === undefined) throw new TypeError(`enclave.result: ${typeof value} is not JSON serialisable`);
    if (brackets > MAX_DEPTH && depth(parse(json)) > MAX_DEPTH) {
      throw new RangeError(`enclave.result: nested deeper than ${MAX_DEPTH} levels`);
    }
    return Buffer.from(json);
  }

  // `node -e` offers every built-in module as a global, and its own module's names; a program has neither.
  function removeEvalGlobals() {
    for (const name of ['require', 'module', 'exports', '__filename', '__dirname']) delete globalThis[name];
    for (const name of Module.builtinModules) {
      const property = Object.getOwnPropertyDescriptor(globalThis, name);
      if (property?.get && !property.enumerable && name !== 'process') delete globalThis[name];
    }
    delete process._eval;
  }

  function offerEnclave(enclave) {
    const resolve = Module._resolveFilename;
    Module._resolveFilename = function resolveFilename(request, ...rest) {
      return request === 'enclave' ? request : Reflect.apply(resolve, this, [request, ...rest]);
    };
    Module._cache.enclave = Object.assign(new Module('enclave'), { exports: enclave, loaded: true });
    Object.defineProperty(globalThis, 'enclave', { value: enclave, writable: true, configurable: true });
  }

  // Writes the program where its own tools expect it (fork, Worker, relative imports); never over a file.
  function place(program, names, directory = process.cwd()) {
    for (const name of names) {
      const file = `${directory}/${name}`;
      let descriptor;
      try {
        descriptor = fs.openSync(file, 'wx', 0o644);
        const bytes = Buffer.from(program);
        for (let at = 0; at < bytes.length; ) at += fs.writeSync(descriptor, bytes, at);
        return file;
      } catch {
        if (descriptor !== undefined) fs.unlinkSync(file);
      } finally {
        if (descriptor !== undefined) fs.closeSync(descriptor);
      }
    }
    return undefined;
  }

  const SHIM =
    'data:text/javascript,const e=globalThis.enclave;export default e;export const {result,binding,session_id,input}=e';

  // What imports for code in this file. Only code that a module loader has compiled can; this file is none when it comes
  // out of a snapshot.
  function importerFrom(file) {
    const importer = new Module(file, null);
    importer._compile('module.exports = (specifier) => import(specifier)', file);
    return importer.exports;
  }

  const WRAPPER = ['exports', 'require', 'module', '__filename', '__dirname'];
  const ONLY_IN_MODULES =
    /^(?:Cannot use import statement outside a module|Cannot use 'import\.meta' outside a module|Unexpected token 'export')/;

  function compiles(text) {
    try {
      builtin('vm').compileFunction(text, WRAPPER);
      return true;
    } catch (error) {
      return ONLY_IN_MODULES.test(error.message) ? undefined : false;
    }
  }

  // A module is what does not compile as CommonJS because of import, export or an await at the top level.
  function isModule(program) {
    if (!/\b(?:import|export|await)\b/.test(program)) return false;
    const plain = compiles(program);
    if (plain !== false) return plain === undefined;
    return compiles(`(async () => {${program.replace(/^#!.*/, '')}\n})`) === true;
  }

  function runModule(program, own) {
    const shim =
      SHIM;
    const text = program.replace(
      /(\bimport\s*(?:\(\s*|[\w$*{}\s,]+?\s*from\s*)?)(['"])enclave\2/g,
      (_, before) => `${before}'${shim}'`,
    );
    let file;
    if (own === undefined) file = place(text, ['main.mjs', '.enclave-main.mjs']);
    // What Node would not take for a module, or is not what it was, is run from a file beside it.
    else if (own.endsWith('.mjs') && text === program) file = own;
    else file = place(text, ['.enclave-main.mjs'], folder(own));
    const base = file ?? own ?? `${process.cwd()}/main.mjs`;
    process.argv[1] = own ?? base;
    Object.defineProperty(globalThis, 'require', { value: Module.createRequire(base), writable: true, configurable: true });
    let settled = false;
    process.on('exit', () => {
      if (settled || process.exitCode) return;
      process.exitCode = 13;
      fs.writeSync(2, 'a top-level await of main.mjs never settled\n');
    });
    send('S', []);
    // The rejection is left unhandled on purpose: Node then prints the error and exits as for any main module.
    const url = file ? builtin('url').pathToFileURL(file).href : `data:text/javascript,${encodeURIComponent(text)}`;
    importerFrom(base)(url).finally(() => (settled = true));
  }

  function runScript(program, own) {
    const file = own ?? place(program, ['main.js', '.enclave-main.js']) ?? `${process.cwd()}/main.js`;
    process.argv[1] = file;
    const main = Object.assign(new Module(file, null), { id: '.', filename: file });
    main.paths = Module._nodeModulePaths(folder(file));
    process.mainModule = main;
    Module._cache[file] = main;
    send('S', []);
    // Bound and from a fresh tick, so that no frame of this file stands in the program's stack traces.
    process.nextTick(main._compile.bind(main, program, file));
    process.nextTick(() => (main.loaded = true));
  }

  function runTurns(program, own, most) {
    const base = own ?? `${process.cwd()}/main.js`;
    process.argv[1] = own ?? '';
    Object.defineProperty(globalThis, 'require', { value: Module.createRequire(base), writable: true, configurable: true });
    const load = importerFrom(base);
    const importer = (specifier) => load(specifier === 'enclave' ? SHIM : specifier);
    const started = () => send('S', []);
    const serve = turns({ builtin, signals, started, send: sendChecked, writeAll, strings: cut, importer, encode, limit: most });
    serve(program, own ?? 'main.js');
  }

  // The session's input, if it was given one.
  function readInput(file) {
    let text;
    try {
      text = fs.readFileSync(file, 'utf8');
    } catch (error) {
      if (error.code === 'ENOENT') return null;
      throw error;
    }
    try {
      return parse(text);
    } catch (error) {
      throw new SyntaxError(`enclave.input: ${file} is not JSON: ${error.message}`);
    }
  }

  return function main() {
    const [limit, session_id, entrypoint, most, count, ...rest] = receive();
    const program = rest.pop().replace(/^\uFEFF/, '');
    const args = rest.splice(0, Number(count));
    for (const name of Object.keys(process.env)) delete process.env[name];
    for (let at = 0; at < rest.length; at += 2) process.env[rest[at]] = rest[at + 1];
    if ('NODE_PATH' in process.env) Module._initPaths();
    process.argv.splice(1, Infinity, '', ...args);

    if (process._eval !== undefined) removeEvalGlobals();
    process.execArgv.length = 0;
    const inputFile = `${process.cwd()}/input.json`;
    offerEnclave({
      session_id,
      result(value) {
        const json = encode(value);
        if (json.length > Number(limit)) {
          throw new RangeError(`enclave.result: ${json.length} bytes of JSON, at most ${limit} are allowed`);
        }
        sendChecked('R', json);
      },
      binding(name) {
        const url = process.env[`ENCLAVE_SVC_${name}`.toUpperCase().replaceAll('-', '_')];
        if (url === undefined) throw new Error(`this session has no service binding named ${stringify(name)}`);
        return url;
      },
      get input() {
        const value = readInput(inputFile);
        if (value !== null) Object.defineProperty(this, 'input', { value, enumerable: true, configurable: true });
        return value;
      },
    });
    const own = entrypoint ? `${process.cwd()}/${entrypoint}` : undefined;
    if (most !== '') runTurns(program, own, Number(most));
    else (isModule(program) ? runModule : runScript)(program, own);
  };
})
// How this file is called in the stack traces in which it appears.
//# sourceURL=node:enclave
