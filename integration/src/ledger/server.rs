//! The ledger over HTTP: `POST /entries` with `id TAB content`, `GET /entries`, `GET /count`.

use std::io::BufReader;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::http::{self, Message};
use super::{CONTENT_MAX, Ledger};
use crate::error::{Context as _, Error, Result};

/// Clients at a time; more are turned away.
const CONNECTIONS_MAX: usize = 64;

/// A client that says nothing for so long is gone.
const IDLE: Duration = Duration::from_secs(60);

/// Serves until the process is ended by a signal, or the file refuses: then nothing may be acknowledged any more.
pub fn serve(file: &Path, listen: SocketAddr, mut say: impl FnMut(String)) -> Result<()> {
    let (ledger, torn) = Ledger::open(file)?;
    let listener = TcpListener::bind(listen).context(|| listen.to_string())?;
    say(format!(
        "{} entries, {torn} bytes of a torn line cut off, listening on {listen}",
        ledger.entries().len()
    ));
    let ledger = Arc::new(Mutex::new(ledger));
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = listener.accept().context(|| "accept".to_owned())?;
        if connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (ledger, connections) = (Arc::clone(&ledger), Arc::clone(&connections));
        std::thread::spawn(move || {
            // A client that breaks off, or talks nonsense, is its own problem.
            drop(converse(&stream, &ledger));
            connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn converse(stream: &TcpStream, ledger: &Mutex<Ledger>) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = http::read(&mut reader, CONTENT_MAX + 32)? {
        let (status, body) = answer(&request, ledger);
        http::write(&mut &*stream, &format!("HTTP/1.1 {status}"), body.as_bytes())?;
        if status.starts_with('5') {
            // What is on disk now is unknown: only a start that reads it can say.
            std::process::exit(1);
        }
    }
    Ok(())
}

fn answer(request: &Message, ledger: &Mutex<Ledger>) -> (&'static str, String) {
    let mut words = request.first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    match (method, path) {
        ("POST", "/entries") => match entry(&request.body) {
            Ok((id, content)) => match ledger.append(id, content) {
                Ok(()) => ("200 OK", id.to_string()),
                Err(error) => ("500 Internal Server Error", error.to_string()),
            },
            Err(error) => ("400 Bad Request", error.to_string()),
        },
        ("GET", "/entries") => {
            let lines = ledger.entries().iter().map(|(id, content)| format!("{id}\t{content}\n"));
            ("200 OK", lines.collect())
        }
        ("GET", "/count") => ("200 OK", ledger.entries().len().to_string()),
        _ => ("404 Not Found", "POST /entries, GET /entries or GET /count".to_owned()),
    }
}

fn entry(body: &[u8]) -> Result<(u64, &str)> {
    let text = std::str::from_utf8(body).context(|| "not text".to_owned())?;
    let (id, content) = text.split_once('\t').context(|| "no tab behind the id".to_owned())?;
    if content.len() > CONTENT_MAX || content.contains(['\t', '\n']) {
        return Err(Error::new("content too long, or with a tab or line end"));
    }
    Ok((id.parse().context(|| "id".to_owned())?, content))
}
