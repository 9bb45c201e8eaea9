//! The connection of a session: gRPC over mutual TLS, dialled by the primary. Runs on the data plane's thread.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use safe_proto::replication::replication_service_client::ReplicationServiceClient;
use safe_proto::replication::replication_service_server::{ReplicationService, ReplicationServiceServer};
use safe_proto::replication::{Frame, ReplicateRequest, ReplicateResponse};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::session::QUEUE;
use crate::tls::Tls;

/// Most bytes of one frame; the largest ones are lists of entries with long targets of symbolic links.
const FRAME: usize = 8 << 20;
const WINDOW: u32 = 16 << 20;
const HTTP_FRAME: u32 = 1 << 20;

/// A connection, before and after the handshake of the session.
pub struct Connection {
    /// Frames to the other side.
    pub outgoing: mpsc::Sender<Frame>,
    /// Frames of the other side.
    pub incoming: BoxStream<'static, Result<Frame, Status>>,
    /// Address of the other side.
    pub endpoint: String,
    /// Which one of its addresses that is, where it was dialled.
    pub index: usize,
    server: Option<JoinHandle<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
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
        let io = Mutex::new(Some(hyper_util::rt::TokioIo::new(Io(TlsStream::from(stream)))));
        let channel = Endpoint::from_static("http://replicator")
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(HTTP_FRAME)
            .connect_with_connector(tower::service_fn(move |_| {
                let io = io.lock().take();
                async move { io.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
            }))
            .await
            .map_err(|error| sources(&error))?;
        let mut client = ReplicationServiceClient::new(channel)
            .max_decoding_message_size(FRAME)
            .max_encoding_message_size(FRAME);
        let (outgoing, frames) = mpsc::channel(QUEUE);
        let requests = ReceiverStream::new(frames).map(|frame| ReplicateRequest { frame: Some(frame) });
        let responses = client.replicate(requests).await.map_err(|status| status.message().to_owned())?;
        let incoming = responses.into_inner().map(|response| unwrap(response?.frame)).boxed();
        Ok(Connection { outgoing, incoming, endpoint: endpoint.to_string(), index: 0, server: None })
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result.map_err(|error: String| format!("{endpoint}: {error}")),
        Err(_) => Err(format!("{endpoint}: {SILENCE} {} ms", limit.as_millis())),
    }
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
        let (begun, begins) = oneshot::channel();
        let service = ReplicationServiceServer::new(Listener { begun: Mutex::new(Some(begun)) })
            .max_decoding_message_size(FRAME)
            .max_encoding_message_size(FRAME);
        let io = tokio_stream::iter([Ok::<_, std::io::Error>(Io(TlsStream::from(stream)))]);
        // The server ends when its list of connections does; this one never does, and is aborted instead.
        let io = io.chain(tokio_stream::pending());
        let serving = Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(HTTP_FRAME)
            .add_service(service)
            .serve_with_incoming(io);
        let server = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::debug!(error = sources(&error), "the server side of a stream ended");
            }
        });
        let begun: Result<Begun, String> = begins.await.map_err(|_| "the stream was not begun".into());
        let (incoming, outgoing) = begun.inspect_err(|_| server.abort())?;
        Ok::<_, String>((incoming, outgoing, server))
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(Ok((incoming, outgoing, server))) => {
            Ok(Connection { outgoing, incoming, endpoint, index: 0, server: Some(server) })
        }
        Ok(Err(error)) => Err(format!("{endpoint}: {error}")),
        Err(_) => Err(format!("{endpoint}: {SILENCE} {} ms", limit.as_millis())),
    }
}

type Begun = (BoxStream<'static, Result<Frame, Status>>, mpsc::Sender<Frame>);

/// Serves exactly one stream.
struct Listener {
    begun: Mutex<Option<oneshot::Sender<Begun>>>,
}

#[tonic::async_trait]
impl ReplicationService for Listener {
    type ReplicateStream = BoxStream<'static, Result<ReplicateResponse, Status>>;

    async fn replicate(
        &self,
        request: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let begun = self.begun.lock().take();
        let Some(begun) = begun else {
            return Err(Status::failed_precondition("one stream in a connection"));
        };
        let (outgoing, frames) = mpsc::channel(QUEUE);
        let incoming = request.into_inner().map(|request| unwrap(request?.frame)).boxed();
        if begun.send((incoming, outgoing)).is_err() {
            return Err(Status::unavailable("no session is expected"));
        }
        Ok(Response::new(
            ReceiverStream::new(frames).map(|frame| Ok(ReplicateResponse { frame: Some(frame) })).boxed(),
        ))
    }
}

fn unwrap(frame: Option<Frame>) -> Result<Frame, Status> {
    frame.ok_or_else(|| Status::invalid_argument("empty frame"))
}

/// An error with everything below it.
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A TLS stream that the server side of tonic takes.
struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
