//! The connection of a session until both sides have agreed: TCP and mutual TLS, dialled by the primary. Runs on the data
//! plane's thread; afterwards it is a [`Line`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use safe_proto::replication::{Frame, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::line::Line;
use crate::line::frame::{Assembler, Encoded, encode};
use crate::tls::{PROTOCOL, Tls};

/// A connection before the session.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    /// Address of the other side.
    pub endpoint: String,
    /// Which one of its addresses that is, where it was dialled.
    pub index: usize,
    /// Silence that ends its session: the longer one of what both sides were told, for each sends as often as its own needs.
    pub stall: Duration,
}

const SILENCE: &str = "no answer within";

/// Whether an attempt failed because nothing was said.
#[must_use]
pub fn is_silence(reason: &str) -> bool {
    reason.contains(SILENCE)
}

/// Dials the other node.
///
/// # Errors
/// One sentence for people.
pub async fn dial(
    tls: &Tls,
    module: &str,
    endpoint: SocketAddr,
    limit: Duration,
) -> Result<Connection, String> {
    let attempt = async {
        let tcp = TcpStream::connect(endpoint).await.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let name = ServerName::try_from(module.to_owned()).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::clone(&tls.client));
        let stream = connector.connect(name, tcp).await.map_err(|error| error.to_string())?;
        Connection::new(TlsStream::from(stream), endpoint.to_string())
    };
    within(limit, attempt).await.map_err(|error| format!("{endpoint}: {error}"))
}

/// Takes a connection of the other node.
///
/// # Errors
/// One sentence for people.
pub async fn accept(tls: &Tls, tcp: TcpStream, limit: Duration) -> Result<Connection, String> {
    let endpoint = tcp.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    let attempt = async {
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.server));
        let stream = acceptor.accept(tcp).await.map_err(|error| error.to_string())?;
        Connection::new(TlsStream::from(stream), endpoint.clone())
    };
    within(limit, attempt).await.map_err(|error| format!("{endpoint}: {error}"))
}

async fn within<T>(limit: Duration, attempt: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) => Err(format!("{SILENCE} {} ms", limit.as_millis())),
    }
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, endpoint: String) -> Result<Self, String> {
        // The side that listens takes whoever offers no protocol at all.
        if stream.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
            return Err("the other side does not speak this protocol".into());
        }
        Ok(Self { stream, endpoint, index: 0, stall: Duration::MAX })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// One sentence for people.
    pub async fn send(&mut self, kind: frame::Kind) -> Result<(), String> {
        let Encoded { message, content } = encode(Frame { kind: Some(kind) });
        let broke = |error: std::io::Error| format!("the stream broke: {error}");
        self.stream.write_all(&message).await.map_err(broke)?;
        self.stream.write_all(&content).await.map_err(broke)?;
        self.stream.flush().await.map_err(broke)
    }

    /// The next frame, and not a byte more.
    ///
    /// # Errors
    /// One sentence for people.
    pub async fn receive(&mut self) -> Result<Frame, String> {
        let (mut assembler, mut frames) = (Assembler::default(), VecDeque::new());
        loop {
            if let Some(frame) = frames.pop_front() {
                return Ok(frame);
            }
            // Few frames come before the session: not worth to be faster.
            let byte = self.stream.read_u8().await.map_err(|_| "the other node ended the stream")?;
            assembler.take(&[byte], &mut frames).map_err(|error| error.to_string())?;
        }
    }

    /// Both sides have agreed.
    ///
    /// # Errors
    /// The socket refuses.
    pub fn into_line(self) -> std::io::Result<Arc<Line>> {
        let (tcp, tls) = match self.stream {
            TlsStream::Client(stream) => {
                let (tcp, tls) = stream.into_inner();
                (tcp, rustls::Connection::from(tls))
            }
            TlsStream::Server(stream) => {
                let (tcp, tls) = stream.into_inner();
                (tcp, rustls::Connection::from(tls))
            }
        };
        Line::new(tcp.into_std()?, tls)
    }
}
