// The interrupts of turns, as an expression: the function that turns.js calls. Each is announced by a message from the
// runner, and then comes as SIGINT, which Node takes on a thread of its own.
(builtin, hide) => {
  'use strict';

  // What of Node's own is needed beside what it offers everyone.
  function internal(name) {
    const { noDeprecation } = process;
    process.noDeprecation = true;
    try {
      return process.binding(name);
    } finally {
      process.noDeprecation = noDeprecation;
    }
  }

  // Keeps Node's watch over SIGINT up between turns: it then ends what runs in `entry`, and nothing else.
  const watch = (() => {
    try {
      const { startSigintWatchdog, stopSigintWatchdog } = internal('contextify');
      startSigintWatchdog();
      // Did one come when nothing ran there? It is told once. To stop what was started twice stops nothing.
      const take = () => {
        startSigintWatchdog();
        return stopSigintWatchdog();
      };
      return { take };
    } catch {
      process.on('SIGINT', () => {});
      return undefined;
    }
  })();
  // Handlers that a program adds or removes leave that watch alone: Node would first put its own in its place, and then
  // none, and the next signal would end this process.
  for (const event of ['newListener', 'removeListener']) {
    for (const listener of process.listeners(event)) {
      process.removeListener(event, listener);
      process.on(event, (name, ...rest) => name !== 'SIGINT' && Reflect.apply(listener, process, [name, ...rest]));
    }
  }

  const { wait } = Atomics;
  const now = performance.now.bind(performance);
  const STEP = Symbol.for('enclave.step');
  // The only way into code of the session that SIGINT can end.
  const source = `globalThis[Symbol.for('${STEP.description}')]()`;
  const entry = new (builtin('vm').Script)(source, { filename: 'node:enclave' });
  // From its announcement to where it is taken, at most: the runner and Node's thread may have to wait for a processor.
  const MAX_MS = 1000;
  const NOTHING = new Int32Array(new SharedArrayBuffer(4));

  // What is interrupted leaves Node's stack of asynchronous contexts as it stands, which Node later takes for a reason to
  // abort.
  const contexts = (() => {
    try {
      const { async_hook_fields: fields, async_id_fields: ids, popAsyncContext: pop, constants } = internal('async_wrap');
      const depth = () => fields[constants.kStackLength];
      return { depth, pop: () => pop(ids[constants.kExecutionAsyncId]) };
    } catch {
      return { depth: () => 0 };
    }
  })();

  const wasInterrupted = (error) => error?.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED';

  let inside = false;
  // Those that were announced and have not come yet, and when the last one was.
  let [owed, announcedAt] = [0, 0];

  // Throws when it was interrupted; what it awaits goes on until it has to wait for something outside.
  function interruptible(step) {
    if (inside) return step();
    inside = true;
    const depth = contexts.depth();
    const entered = () => {
      // The end of this would forget it.
      hasSeen();
      return step();
    };
    hide(STEP, entered);
    try {
      return entry.runInThisContext({ breakOnSigint: true, displayErrors: false });
    } catch (error) {
      if (wasInterrupted(error)) owed -= 1;
      throw error;
    } finally {
      inside = false;
      while (contexts.depth() > depth) contexts.pop();
    }
  }

  // Has one come when there was nothing that it could interrupt?
  function hasSeen() {
    const seen = watch?.take() ?? false;
    if (seen) owed -= 1;
    return seen;
  }

  function announced() {
    [owed, announcedAt] = [owed + 1, now()];
  }

  // One for a turn that has ended may be on its way still, and would be taken for one to the next.
  function awaitAnnounced() {
    hasSeen();
    const until = announcedAt + MAX_MS;
    while (watch && owed > 0 && now() < until) {
      try {
        interruptible(() => owed > 0 && wait(NOTHING, 0, 0, until - now()));
      } catch (error) {
        if (!wasInterrupted(error)) throw error;
      }
    }
    owed = 0;
  }

  return { interruptible, wasInterrupted, isInside: () => inside, hasSeen, announced, awaitAnnounced };
}
