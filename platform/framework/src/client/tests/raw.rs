//! A peer that speaks HTTP/2 frame by frame, so that a test decides each of them.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;
pub(super) const CANCEL: u32 = 8;

/// A `HealthCheckResponse` that says SERVING, as a gRPC message.
pub(super) const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Bytes,
}

/// The server's end of a connection.
pub(super) struct Raw {
    io: DuplexStream,
    /// Whether pings are answered.
    pub(super) answers_pings: bool,
}

impl Raw {
    /// Reads the preface and sends SETTINGS.
    pub(super) async fn accept(mut io: DuplexStream, settings: &[(u16, u32)]) -> Self {
        let mut preface = [0; 24];
        io.read_exact(&mut preface).await.unwrap();
        assert_eq!(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &preface);
        let mut raw = Self {
            io,
            answers_pings: true,
        };
        raw.settings(settings).await;
        raw
    }

    /// The next frame that a test cares about; none once the client closed.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        super::patient(self.read_on()).await
    }

    async fn read_on(&mut self) -> Option<Frame> {
        loop {
            let frame = self.read().await.ok()?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[]).await,
                PING if frame.flags & ACK == 0 && self.answers_pings => {
                    self.write(PING, ACK, 0, &frame.payload).await;
                }
                DATA | HEADERS | RST_STREAM | GOAWAY => return Some(frame),
                PING if frame.flags & ACK == 0 => return Some(frame),
                _ => {}
            }
        }
    }

    /// The next frame of `kind`.
    pub(super) async fn expect(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the client closed");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Waits until the next request is whole and returns its stream.
    pub(super) async fn request(&mut self) -> u32 {
        loop {
            let frame = self.next().await.expect("the client closed");
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                return frame.stream;
            }
        }
    }

    async fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).await?;
        Ok(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload: payload.into(),
        })
    }

    pub(super) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // A client that is gone is the test's to notice.
        drop(self.io.write_all(&frame).await);
    }

    pub(super) async fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        self.write(SETTINGS, 0, 0, &payload).await;
    }

    pub(super) async fn goaway(&mut self, last: u32, code: u32) {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    pub(super) async fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// Opens the window of `stream`, or of the connection, by `more`.
    pub(super) async fn window(&mut self, stream: u32, more: u32) {
        self.write(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
            .await;
    }

    /// Headers as literals, never indexed.
    pub(super) async fn headers(&mut self, stream: u32, headers: &[(&str, &str)], end: bool) {
        let mut block = Vec::new();
        for (name, value) in headers {
            block.push(0);
            for text in [name, value] {
                assert!(text.len() < 127, "one byte of length");
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.write(HEADERS, flags, stream, &block).await;
    }

    pub(super) async fn begin(&mut self, stream: u32) {
        let headers = [(":status", "200"), ("content-type", "application/grpc")];
        self.headers(stream, &headers, false).await;
    }

    pub(super) async fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        let flags = if end { END_STREAM } else { 0 };
        self.write(DATA, flags, stream, data).await;
    }

    pub(super) async fn trailers(&mut self, stream: u32, code: &str) {
        self.headers(stream, &[("grpc-status", code)], true).await;
    }

    /// A whole answer.
    pub(super) async fn answer(&mut self, stream: u32) {
        self.begin(stream).await;
        self.data(stream, SERVING, false).await;
        self.trailers(stream, "0").await;
    }
}
