// try: buffers without end, in Node
// limits: memoryBytes=201326592 wallClockMs=30000
// expect: killed memory_exceeded
// sim: memory 64GiB
const held = [];
for (;;) held.push(Buffer.alloc(8 << 20, 1));
