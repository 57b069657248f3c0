//! A runner that takes turns, and does what their code says:
//!
//! `say TEXT` writes a line, `value TEXT` is the value, `give JSON` a result, `raise NAME` an error, `hang` waits for an
//! interrupt, `deaf` for ever, `lie` reports nonsense, `exit N` ends the program, `big N` has a value of N bytes.

use protocol::{Decoder, Exit, GuestFrame, HostFrame, Stream, Turned, VERSION, encode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;

struct Runner {
    pipe: DuplexStream,
    decoder: Decoder,
    buffer: Vec<u8>,
}

/// Plays until the host hangs up, or the sandbox that it stands for has ended; with it that ends.
pub(crate) async fn play(pipe: DuplexStream, ended: CancellationToken) {
    let _with_it = ended.clone().drop_guard();
    let mut runner = Runner { pipe, decoder: Decoder::new(), buffer: vec![0; 1 << 16] };
    tokio::select! {
        _ = runner.run() => {}
        () = ended.cancelled() => {}
    }
}

impl Runner {
    async fn run(&mut self) -> Option<()> {
        self.send(GuestFrame::Hello { version: VERSION }).await?;
        let HostFrame::Start(start) = self.next().await? else { panic!("no start") };
        assert!(start.interactive);
        self.send(GuestFrame::Started { session_id: start.session_id.clone() }).await?;
        loop {
            let turn = match self.next().await? {
                HostFrame::Turn(turn) => turn,
                // One that came too late.
                HostFrame::Interrupt { .. } => continue,
                HostFrame::Start(_)
                | HostFrame::Put(_)
                | HostFrame::File(_)
                | HostFrame::Terminal(_)
                | HostFrame::Stop => {
                    panic!("out of order")
                }
            };
            let mut report = json!({ "status": "completed", "value": null, "error": null });
            for line in turn.code.lines() {
                let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
                match word {
                    "say" => {
                        let data = format!("{rest}\n").into_bytes();
                        self.send(GuestFrame::Output { stream: Stream::Stdout, data }).await?;
                    }
                    "value" => report["value"] = json!({ "text/plain": rest }),
                    "big" => report["value"] = json!({ "text/plain": "x".repeat(rest.parse().unwrap()) }),
                    "give" => self.send(GuestFrame::Result { json: rest.into() }).await?,
                    "raise" => {
                        report["status"] = "failed".into();
                        report["error"] = json!({ "name": rest, "value": "v", "traceback": "t" });
                    }
                    "hang" => {
                        let HostFrame::Interrupt { turn: number } = self.next().await? else {
                            panic!("a turn in a turn")
                        };
                        assert_eq!(number, turn.number);
                        report["status"] = "interrupted".into();
                    }
                    "deaf" => while self.next().await.is_some() {},
                    "lie" => report = json!({ "status": "splendid" }),
                    "exit" => {
                        let exit = Exit::Code(rest.parse().unwrap());
                        self.send(GuestFrame::Exited { session_id: start.session_id.clone(), exit }).await?;
                        return None;
                    }
                    other => panic!("no {other:?}"),
                }
            }
            let report = report.to_string().into_bytes();
            self.send(GuestFrame::Turned(Turned { number: turn.number, report })).await?;
        }
    }

    async fn send(&mut self, frame: GuestFrame) -> Option<()> {
        self.pipe.write_all(&encode(&frame).unwrap()).await.ok()
    }

    async fn next(&mut self) -> Option<HostFrame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let count = self.pipe.read(&mut self.buffer).await.ok().filter(|count| *count > 0)?;
            self.decoder.push(&self.buffer[..count]);
        }
    }
}
