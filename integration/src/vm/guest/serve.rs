//! The machine's side: a program for each connection.

use std::ffi::OsString;
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::{Frame, address, pass_on};
use crate::error::{Context as _, Result};

/// Serves as long as the machine is up.
pub fn serve() -> Result<()> {
    let listener = TcpListener::bind(address()).context(|| address().to_string())?;
    loop {
        let (stream, _) = listener.accept()?;
        // Who breaks off has ended its program.
        std::thread::spawn(move || drop(converse(stream)));
    }
}

fn converse(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut words = Vec::new();
    while let Frame::Word(word) = Frame::read(&mut stream)? {
        words.push(OsString::from_vec(word));
    }
    let writer = Arc::new(Mutex::new(stream.try_clone()?));
    let say = move |frame: Frame| frame.write(&mut *writer.lock().unwrap_or_else(PoisonError::into_inner));
    let mut child = match start(&words) {
        Ok(child) => child,
        Err(error) => {
            say(Frame::Errors(format!("{error}\n").into_bytes()))?;
            return say(Frame::End(127));
        }
    };
    let outputs = outputs(&mut child, &say);
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context(|| "no pid".to_owned())?;
    let alive = Arc::new(Mutex::new(Some(group)));
    let (stdin, shared) = (child.stdin.take(), Arc::clone(&alive));
    std::thread::spawn(move || {
        drop(feed(stream, stdin));
        // The caller is gone: its program must not go on. The number is the program's until it is reaped.
        if let Some(group) = *shared.lock().unwrap_or_else(PoisonError::into_inner) {
            let _gone_already = kill_process_group(group, Signal::KILL);
        }
    });
    waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    *alive.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let status = child.wait()?;
    for output in outputs {
        let _panicked = output.join();
    }
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    say(Frame::End(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)))
}

fn start(words: &[OsString]) -> Result<Child> {
    let (program, arguments) = words.split_first().context(|| "no program".to_owned())?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context(|| program.to_string_lossy().into_owned())
}

/// Its two outputs, on their way.
fn outputs(
    child: &mut Child,
    say: &(impl Fn(Frame) -> Result<()> + Clone + Send + 'static),
) -> Vec<std::thread::JoinHandle<()>> {
    let (out, say_out) = (child.stdout.take(), say.clone());
    let (err, say_err) = (child.stderr.take(), say.clone());
    let out =
        out.map(|out| std::thread::spawn(move || drop(pass_on(out, |piece| say_out(Frame::Output(piece))))));
    let err =
        err.map(|err| std::thread::spawn(move || drop(pass_on(err, |piece| say_err(Frame::Errors(piece))))));
    out.into_iter().chain(err).collect()
}

/// Passes input on until the connection ends.
fn feed(mut stream: TcpStream, mut stdin: Option<std::process::ChildStdin>) -> Result<()> {
    use std::io::Write as _;

    loop {
        match Frame::read(&mut stream)? {
            Frame::Input(bytes) => {
                // A program that does not read its input is not our concern.
                let gone = stdin.as_mut().is_some_and(|pipe| pipe.write_all(&bytes).is_err());
                if gone {
                    stdin = None;
                }
            }
            Frame::InputEnd => stdin = None,
            Frame::Word(_) | Frame::Start | Frame::Output(_) | Frame::Errors(_) | Frame::End(_) => {}
        }
    }
}
