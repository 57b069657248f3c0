//! The one way out: what is inside is captured and carried to a gateway, which a stand-in plays here.

use std::{collections::BTreeSet, time::Duration};

use backend::{AssignError, GatewayError, SessionBackend as _};

use crate::{
    out::{clean, out, set, with_way_out},
    stand_in::Mode,
    support::{node, python},
};

#[tokio::test]
async fn any_connection_and_any_name_end_at_the_gateway() {
    let Some(out) = out("any_connection_and_any_name_end_at_the_gateway", Mode::Serves).await else { return };
    let code = r"
import socket
def talk(to, family=socket.AF_INET):
    s = socket.socket(family)
    s.settimeout(20)
    s.connect(to)
    s.send(b'hi')
    data = b''
    # What kind it is comes in front, maybe on its own.
    while not data.endswith(b'hi'): data += s.recv(100) or b'?hi'
    print(to[0], data, s.getpeername()[:2] == to[:2])
for to in [('93.184.216.34', 80), ('169.254.169.254', 80), ('10.0.0.1', 22), ('128.0.0.1', 7), ('10.99.0.1', 7)]: talk(to)
talk(('::ffff:1.2.3.4', 443), socket.AF_INET6)
talk(('127.0.0.53', 3128)); talk(('127.0.0.53', 1080)); talk(('127.0.0.53', 80))
print(socket.getaddrinfo('some.example', 80, socket.AF_UNSPEC, socket.SOCK_STREAM)[0][4])
for to in [('2606:4700::1', 80), ('fd00::1', 22), ('fe80::1', 7)]: talk(to, socket.AF_INET6)
";
    let (ended, openings) = out.run(python(code)).await;
    let expected = "93.184.216.34 b'hi' True\n169.254.169.254 b'hi' True\n10.0.0.1 b'hi' True\n128.0.0.1 b'hi' True\n\
        10.99.0.1 b'hi' True\n::ffff:1.2.3.4 b'hi' True\n127.0.0.53 b'Http hi' True\n127.0.0.53 b'Socks hi' True\n\
        127.0.0.53 b'Http hi' True\n('192.0.2.7', 80)\n2606:4700::1 b'hi' True\n\
        fd00::1 b'hi' True\nfe80::1 b'hi' True\n";
    assert_eq!(clean(&ended), expected);
    let caught = ["1.2.3.4:443", "10.0.0.1:22", "10.99.0.1:7", "128.0.0.1:7", "169.254.169.254:80", "93.184.216.34:80"];
    let caught6 = ["[2606:4700::1]:80", "[fd00::1]:22", "[fe80::1]:7"];
    let mut expected = set(&["Dns", "Http", "Socks"]);
    expected.extend(caught.iter().chain(&caught6).map(|to| format!("Captured({to})")));
    assert_eq!(openings, expected);
}

#[tokio::test]
async fn what_is_local_stays_inside() {
    let Some(out) = out("what_is_local_stays_inside", Mode::Serves).await else { return };
    let code = r"
import socket, threading
for host in ['127.0.0.1', '127.1.2.3', 'localhost', '0.0.0.0']:
    server = socket.create_server(('', 0))
    client = socket.create_connection((host, server.getsockname()[1]), 20)
    server.accept()[0].send(b'local')
    print(host, client.recv(10))
server = socket.create_server(('::1', 0), family=socket.AF_INET6)
client = socket.create_connection(('::1', server.getsockname()[1]), 20)
server.accept()[0].send(b'local'); print(client.recv(10))
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); udp.bind(('::1', 0)); udp.settimeout(20)
socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'local', udp.getsockname())
print(udp.recv(10))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0)); udp.settimeout(20)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'local', udp.getsockname())
print(udp.recv(10))
";
    let (ended, openings) = out.run(python(code)).await;
    assert_eq!(clean(&ended).matches("b'local'").count(), 7, "{ended:?}");
    assert_eq!(openings, set(&[]));
}

#[tokio::test]
async fn node_reaches_the_gateway_too() {
    let Some(out) = out("node_reaches_the_gateway_too", Mode::Serves).await else { return };
    let code = r"
const socket = require('net').connect(7, 'some.example', () => socket.write('hi'));
socket.on('data', data => { console.log(`${data}`, socket.remoteAddress); socket.end(); });
require('dns').resolve4('other.example', (error, found) => console.log(error, found));
";
    let (ended, openings) = out.run(node(code)).await;
    assert!(
        clean(&ended).contains("hi 192.0.2.7\n") && ended.seen.stdout.contains("null [ '192.0.2.7' ]"),
        "{ended:?}"
    );
    assert_eq!(openings, set(&["Captured(192.0.2.7:7)", "Dns"]));
}

#[tokio::test]
async fn datagrams_lead_nowhere_and_are_told() {
    let Some(out) = out("datagrams_lead_nowhere_and_are_told", Mode::Serves).await else { return };
    let code = r"
import socket, struct
def udp(to, data=b'x', family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.connect(to); s.send(data)
    try: return s.recv(600)
    except OSError as error: return error.strerror
query = struct.pack('!6H', 77, 0x100, 1, 0, 0, 0) + b'\3any\7example\0\0\1\0\1'
for to in [('127.0.0.1', 53), ('8.8.8.8', 53)]:
    answer = udp(to, query)
    print(to[0], answer[:2] == query[:2], answer[-4:])
for n in range(3): print(udp(('8.8.8.8', 4433)))
for to in ['2001:db8::9', 'fd00::1']: print(udp((to, 5353), family=socket.AF_INET6))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('224.0.0.1', 99))
s = socket.create_connection(('9.9.9.9', 53)); s.sendall(struct.pack('!H', len(query)) + query)
answers = s.makefile('rb'); print(answers.read(*struct.unpack('!H', answers.read(2)))[-4:])
s = socket.create_connection(('2620:fe::fe', 53)); s.sendall(struct.pack('!H', len(query)) + query)
answers = s.makefile('rb'); print(answers.read(*struct.unpack('!H', answers.read(2)))[-4:])
try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).sendto(b'\x08\0\xf7\xff\0\0\0\0', ('1.1.1.1', 0))
except OSError as error: print(error)
";
    let (ended, openings) = out.run(python(code)).await;
    let expected = "127.0.0.1 True b'\\xc0\\x00\\x02\\x07'\n8.8.8.8 True b'\\xc0\\x00\\x02\\x07'\n\
        Connection refused\nConnection refused\nConnection refused\nConnection refused\nConnection refused\n\
        b'\\xc0\\x00\\x02\\x07'\nb'\\xc0\\x00\\x02\\x07'\n";
    assert_eq!(clean(&ended), expected);
    let attempt = |protocol, to| format!("Attempt {{ protocol: {protocol}, destination: {to} }}");
    // Over IPv6 nobody inside knows where to.
    let expected = [
        attempt("Udp", "8.8.8.8:4433"),
        attempt("Udp", "224.0.0.1:99"),
        attempt("Udp", "[::]:0"),
        attempt("Icmp", "1.1.1.1:0"),
        "Dns".into(),
    ];
    assert_eq!(openings, BTreeSet::from(expected));
}

#[tokio::test]
async fn a_thousand_connections_at_once_are_carried_both_ways() {
    let Some(out) = out("a_thousand_connections_at_once_are_carried_both_ways", Mode::Serves).await else { return };
    let code = r"
import resource, select, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
socks = []
for n in range(1000):
    s = socket.socket(); s.setblocking(False); s.connect_ex(('10.1.%d.%d' % (n // 250, n % 250), 1001)); socks.append(s)
left = {s: 20000 + n for n, s in enumerate(socks)}
poll = select.poll()
for s in socks: poll.register(s, select.POLLOUT)
by_fd = {s.fileno(): s for s in socks}
done = {}
while len(done) < 1000:
    ready = poll.poll(20000)
    if not ready: break
    for fd, event in ready:
        s = by_fd[fd]
        if left[s] > 0:
            left[s] -= s.send(b'x' * min(left[s], 8192))
            if not left[s]: s.shutdown(socket.SHUT_WR); poll.modify(s, select.POLLIN)
        else:
            done[s] = int(s.recv(100)); poll.unregister(s)
print(len(done), all(done[s] == 20000 + n for n, s in enumerate(socks)))
";
    let (ended, openings) = out.run(python(code)).await;
    assert_eq!(clean(&ended), "1000 True\n");
    assert_eq!(openings.len(), 1000);
}

#[tokio::test]
async fn each_half_of_a_connection_ends_by_itself_and_an_early_answer_is_read() {
    let name = "each_half_of_a_connection_ends_by_itself_and_an_early_answer_is_read";
    let Some(out) = out(name, Mode::Serves).await else { return };
    let code = r"
import socket
s = socket.create_connection(('1.2.3.4', 1001), 20)
for n in range(100): s.sendall(b'x' * 10000)
s.shutdown(socket.SHUT_WR)
print(s.recv(100), s.recv(100))
s = socket.create_connection(('1.2.3.4', 1000), 20)
s.sendall(b'3000000\n')
got = 0
while data := s.recv(65536): got += len(data)
print(got)
s = socket.create_connection(('1.2.3.4', 1002), 20)
try: s.sendall(b'x' * 200000)
except OSError: pass
print(s.recv(100))
";
    let (ended, _) = out.run(python(code)).await;
    assert_eq!(clean(&ended), "b'1000000' b''\n3000000\nb'no'\n");
}

#[tokio::test]
async fn the_workload_cannot_get_at_the_runners_socket_or_at_the_rules() {
    let name = "the_workload_cannot_get_at_the_runners_socket_or_at_the_rules";
    let Some(out) = out(name, Mode::Serves).await else { return };
    let code = r"
import ctypes, os, socket, struct
def refused(what, act):
    try: act()
    except OSError as error: return
    print('WRONG', what)
def pidfd():
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(434, 1, 0)
    if fd < 0 or libc.syscall(438, fd, 3, 0) < 0: raise OSError('refused')
for fd in range(0, 64):
    refused(f'/proc/1/fd/{fd}', lambda: os.open(f'/proc/1/fd/{fd}', os.O_RDWR))
for task in os.listdir('/proc/1/task'):
    for fd in range(0, 64):
        refused(f'/proc/1/task/{task}/fd/{fd}', lambda: os.open(f'/proc/1/task/{task}/fd/{fd}', os.O_RDWR))
    refused('mem', lambda: open(f'/proc/1/task/{task}/mem', 'rb').read(1))
refused('pidfd', pidfd)
refused('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 17))
refused('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
def iptables(): socket.socket(socket.AF_INET, socket.SOCK_STREAM).setsockopt(0, 64, b'nat'.ljust(1024, b'\0'))
refused('iptables', iptables)
def route():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    body = struct.pack('BBBBI', 2, 24, 0, 0, 1) + struct.pack('HH', 8, 2) + b'\x09\x09\x09\x09'
    s.send(struct.pack('IHHII', 16 + len(body), 20, 0x505, 1, 0) + body)
    code, = struct.unpack('i', s.recv(100)[16:20])
    if code: raise OSError(-code, 'refused')
refused('address', route)
print(sorted(os.listdir('/proc/self/fd')))
print([l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap') and int(l.split()[1], 16)])
";
    let (ended, _) = out.run(python(code)).await;
    assert_eq!(clean(&ended), "['0', '1', '2', '3', '4']\n[]\n");
}

#[tokio::test]
async fn without_a_way_out_nothing_is_reached() {
    let Some(out) = out("without_a_way_out_nothing_is_reached", Mode::Serves).await else { return };
    let code = r"
import socket
for to in [('1.2.3.4', 80), ('127.0.0.53', 3128), ('127.0.0.1', 53)]:
    try: socket.create_connection(to, 5); print('connected')
    except OSError as error: print(error.strerror)
";
    let ended = out.host.run(&python(code)).await;
    assert_eq!(clean(&ended), "No route to host\nConnection refused\nConnection refused\n");
    let program = python("");
    let prepared = out.host.gvisor.prepare(&program.shape()).await.unwrap();
    let id = prepared.id.clone();
    let spec = with_way_out(program).spec();
    let failed = out.host.gvisor.assign(prepared, &spec).await.unwrap_err();
    assert!(matches!(failed, AssignError::Gateway(GatewayError::Mismatch)), "{failed:?}");
    out.host.reclaim(&id).await;
}

#[tokio::test]
#[ignore = "a measurement"]
async fn throughput_of_one_stream() {
    let Some(out) = out("throughput_of_one_stream", Mode::Serves).await else { return };
    let code = r"
import socket, time
s = socket.create_connection(('1.2.3.4', 1000), 20)
began = time.monotonic()
s.sendall(b'%d\n' % (256 << 20))
got, buffer = 0, bytearray(1 << 18)
while n := s.recv_into(buffer): got += n
took = time.monotonic() - began
print(f'down {got >> 20} MiB, {(got >> 20) / took:.0f} MiB/s')
s = socket.create_connection(('1.2.3.4', 1001), 20)
began = time.monotonic()
block = b'x' * (1 << 18)
for n in range(1024): s.sendall(block)
s.shutdown(socket.SHUT_WR)
got = int(s.recv(100))
took = time.monotonic() - began
print(f'up {got >> 20} MiB, {(got >> 20) / took:.0f} MiB/s')
times = []
for n in range(200):
    began = time.monotonic()
    s = socket.create_connection(('1.2.3.4', 7), 20); s.send(b'x'); s.recv(1); s.close()
    times.append(time.monotonic() - began)
times.sort()
print(f'connect and echo: p50 {times[100] * 1e6:.0f} us, p99 {times[198] * 1e6:.0f} us')
";
    let mut program = python(code);
    program.limits.cpu_millis = 4000;
    program.limits.wall_clock_ms = 120_000;
    let (ended, _) = out.run(program).await;
    println!("{}{}", ended.seen.stdout, ended.seen.stderr);
    println!("peak memory {} MiB", ended.observation.usage.memory_peak_bytes >> 20);
    assert!(ended.took > Duration::ZERO);
}
