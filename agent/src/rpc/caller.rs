//! Who calls: known once for a connection, attached to each of its requests.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use crate::pki::Identity;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Through the Unix socket, whose mode decides who may open it.
    Local {
        /// User.
        uid: u32,
        /// Process; 0: not known.
        pid: i32,
    },
    /// Through port 9400.
    Remote {
        /// From where.
        address: SocketAddr,
        /// As its certificate says, which the cluster CA signed; none: it showed no certificate.
        identity: Option<Identity>,
    },
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local { uid, pid } => write!(f, "local uid {uid} pid {pid}"),
            Self::Remote { address, identity: Some(identity) } => write!(f, "{identity} at {address}"),
            Self::Remote { address, identity: None } => write!(f, "stranger at {address}"),
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection<S, C = Caller> {
    stream: S,
    caller: C,
    _permit: OwnedSemaphorePermit,
    ends: Option<Pin<Box<Sleep>>>,
}

impl<S, C> Connection<S, C> {
    /// A connection of this caller; `permit` is given back when it ends.
    pub(crate) const fn new(stream: S, caller: C, permit: OwnedSemaphorePermit) -> Self {
        Self { stream, caller, _permit: permit, ends: None }
    }

    /// It ends after this time, whatever the caller does.
    pub(crate) fn bounded(mut self, time: Duration) -> Self {
        self.ends = Some(Box::pin(tokio::time::sleep(time)));
        self
    }
}

impl<S, C: Clone + Send + Sync + 'static> Connected for Connection<S, C> {
    type ConnectInfo = C;

    fn connect_info(&self) -> C {
        self.caller.clone()
    }
}

impl<S: AsyncRead + Unpin, C: Unpin> AsyncRead for Connection<S, C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ends) = &mut self.ends
            && ends.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, C: Unpin> AsyncWrite for Connection<S, C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
