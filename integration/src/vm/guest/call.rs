//! The host's side: as if the program ran here.

use std::io::{Write as _, stderr, stdin, stdout};
use std::net::TcpStream;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use super::{Frame, address, pass_on};
use crate::error::{Context as _, Result};

/// A machine that is up answers within this time.
const CONNECT: Duration = Duration::from_secs(2);

/// Runs a program in the machine; its exit code.
pub fn call(words: Vec<std::ffi::OsString>) -> Result<u8> {
    let mut stream = TcpStream::connect_timeout(&address(), CONNECT)
        .context(|| "no answer from the machine".to_owned())?;
    stream.set_nodelay(true)?;
    notice_its_death(&stream)?;
    for word in words {
        Frame::Word(word.into_vec()).write(&mut stream)?;
    }
    Frame::Start.write(&mut stream)?;
    let mut towards = stream.try_clone()?;
    std::thread::spawn(move || {
        // An end of the connection is noticed by the other direction.
        drop(pass_on(stdin(), |piece| Frame::Input(piece).write(&mut towards)));
        drop(Frame::InputEnd.write(&mut towards));
    });
    loop {
        match Frame::read(&mut stream).context(|| "the machine is gone".to_owned())? {
            Frame::Output(bytes) => {
                let mut out = stdout().lock();
                out.write_all(&bytes)?;
                out.flush()?;
            }
            Frame::Errors(bytes) => stderr().write_all(&bytes)?,
            Frame::End(code) => return Ok(code),
            Frame::Word(_) | Frame::Start | Frame::Input(_) | Frame::InputEnd => {}
        }
    }
}

/// A machine that reset itself says nothing.
fn notice_its_death(stream: &TcpStream) -> Result<()> {
    use rustix::net::sockopt;

    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 6)?;
    Ok(())
}
