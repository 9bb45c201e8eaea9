//! A TLS connection to another node, and gRPC over it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// An encrypted, authenticated connection.
pub type Stream = TlsStream<TcpStream>;

/// Connects, from this address if one is given, and shakes hands. Whom it leads to is for `config` to verify: the name sent along says nothing.
///
/// # Errors
/// Nobody there, no answer in time, or not who it should be.
pub async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    config: Arc<ClientConfig>,
    patience: Duration,
) -> std::io::Result<Stream> {
    let attempt = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(config).connect(name, stream).await
    };
    match tokio::time::timeout(patience, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no connection within {} ms", patience.as_millis()),
        )),
    }
}

/// gRPC over one connection; it is not made anew when it breaks.
///
/// # Errors
/// The other side does not speak HTTP/2.
pub async fn channel_over(stream: Stream) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| std::io::Error::other("the connection has ended")) }
    });
    endpoint().connect_with_connector(connector).await
}

/// Settings of every gRPC connection between nodes.
pub(super) fn endpoint() -> Endpoint {
    Endpoint::from_static("http://safed")
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}
