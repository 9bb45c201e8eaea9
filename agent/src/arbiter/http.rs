//! An HTTP request: an answer without error counts.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use futures_util::future::{Either, select};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::body::Body;

/// Most bytes of the head of an answer.
const HEAD: usize = 16 * 1024;

/// Asks; answers with the status if it is 200 to 399.
///
/// # Errors
/// Nobody there, another status, or no HTTP.
pub(super) async fn get(ip: IpAddr, uri: &http::Uri) -> Result<(), String> {
    let said = |error: hyper::Error| format!("it does not speak HTTP: {error}");
    let address = SocketAddr::new(ip, uri.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await.map_err(said)?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = http::Request::get(path)
        .header("host", uri.authority().map_or("", http::uri::Authority::as_str))
        .header("user-agent", concat!("safed/", env!("CARGO_PKG_VERSION")))
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let (answer, connection) = (pin!(sender.send_request(request)), pin!(connection));
    let answer = match select(answer, connection).await {
        Either::Left((answer, _)) => answer,
        // It may have ended with the answer.
        Either::Right((_, answer)) => answer.await,
    };
    let status = answer.map_err(said)?.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("it answered {status}")) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    async fn asked(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let uri = format!("http://arbiter:{port}/ready?x=1").parse().unwrap();
        let outcome = get([127, 0, 0, 1].into(), &uri).await;
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /ready?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("host: arbiter:{port}")), "{request}");
        outcome
    }

    #[tokio::test]
    async fn the_status_decides() {
        assert_eq!(asked("HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
        assert!(
            asked("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap_err().contains("503")
        );
        assert!(asked("nonsense\r\n\r\n").await.is_err());
        assert!(asked("").await.is_err());
    }
}
