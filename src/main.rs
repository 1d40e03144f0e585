//! Arguments, open, serve, exit codes.
//!
//! ```text
//! exit code  when
//! 0          stopped by SIGTERM or SIGINT, everything synced; or only help was asked for
//! 1          the broker could not start, or had to stop
//! 2          the arguments make no sense
//! 3          another broker holds the data directory
//! 4          a setting is refused
//! 74         a sync failed: what is unsynced cannot be trusted, and the next start recovers
//! ```
//! Those of `ottla verify` its `--help` tells.
//! Every failure is one line on stderr that says what to do about it.

use ottla::cli::verify;
use ottla::config::{self, Config};
use ottla::error::{self, Error, Result};
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Ottla, Kafka's little sister: one small, durable log broker that speaks Kafka's wire protocol.

Usage:
  ottla serve [--data DIR] [--listen HOST:PORT] [--config FILE] [--set NAME=VALUE]...
  ottla verify --data DIR [TOPIC[-PARTITION]]...
                    read a stopped broker's files and say what is damaged; `ottla verify --help` tells more
  ottla settings    print the table of all settings, as Markdown
  ottla --help      print this; `ottla serve --help` explains all settings
  ottla --version   print the version
";

const SERVE_USAGE: &str = "\
Usage: ottla serve [--data DIR] [--listen HOST:PORT] [--config FILE] [--set NAME=VALUE]...

  --data DIR           the directory that holds everything durable (log.dirs)
  --listen HOST:PORT   the address to listen on (listeners)
  --config FILE        settings in the form of Kafka's server.properties
  --set NAME=VALUE     one setting; wins over the file, and later ones over earlier ones

Logging goes to stderr; RUST_LOG sets its level (error, warn, info, debug, trace), default info.

Settings:
";

/// What the arguments ask for.
enum Command {
    Print(String),
    Serve {
        file: Option<PathBuf>,
        sets: Vec<(String, String)>,
    },
    Verify {
        data: PathBuf,
        wanted: Vec<String>,
    },
}

fn main() -> ExitCode {
    let command = match arguments(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(e) => return fail(2, &Error::new(format!("{e}; see `ottla --help`"))),
    };
    match command {
        Command::Print(text) => print(&text),
        Command::Serve { file, sets } => match Config::load(file.as_deref(), &sets) {
            Ok(config) => serve(config),
            Err(e) => fail(4, &e),
        },
        Command::Verify { data, wanted } => verify(&data, &wanted),
    }
}

fn verify(data: &Path, wanted: &[String]) -> ExitCode {
    match verify::run(data, wanted, &mut std::io::stdout().lock()) {
        Ok(figures) if figures.damaged > 0 => ExitCode::from(1),
        Ok(figures) if figures.unread > 0 => ExitCode::from(5),
        Ok(_) => ExitCode::SUCCESS,
        Err(e) if is_locked(&e) => fail(3, &e),
        Err(e) if is_no_place(&e) => fail(2, &e),
        Err(e) => fail(5, &e),
    }
}

fn serve(config: Config) -> ExitCode {
    let level = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(level)
        .format(|out, record| writeln!(out, "{} {}", record.level(), record.args()))
        .init();
    for notice in config.notices() {
        log::warn!("{notice}");
    }
    match ottla::broker::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_locked(&e) => fail(3, &e),
        Err(e) => fail(1, &e),
    }
}

/// The lock of the data directory is the one call of a start that answers "would block".
fn is_locked(error: &Error) -> bool {
    error
        .io()
        .is_some_and(|e| e.kind() == ErrorKind::WouldBlock)
}

/// The directory, or what of it is to be verified, is not there.
fn is_no_place(error: &Error) -> bool {
    let kinds = [ErrorKind::NotFound, ErrorKind::NotADirectory];
    error.io().is_some_and(|e| kinds.contains(&e.kind()))
}

fn fail(code: u8, error: &Error) -> ExitCode {
    error::say(&format!("ottla: {error}"));
    ExitCode::from(code)
}

/// Prints to stdout; a reader that has seen enough (`ottla serve --help | head`) is no failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            fail(1, &Error::new(format!("cannot print: {e}")))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn arguments(args: impl Iterator<Item = OsString>) -> Result<Command> {
    use lexopt::Arg::{Long, Short, Value};
    let refused = |e: lexopt::Error| Error::new(e.to_string());
    let mut parser = lexopt::Parser::from_args(args);
    let command = match parser.next().map_err(refused)? {
        None => return Err(Error::new("no command is given")),
        Some(Value(word)) if word == "serve" => return serve_arguments(parser).map_err(refused),
        Some(Value(word)) if word == "verify" => return verify_arguments(parser).map_err(refused),
        Some(Value(word)) if word == "settings" => Command::Print(config::markdown()),
        Some(Value(word)) => return Err(Error::new(format!("unknown command {word:?}"))),
        Some(Long("help") | Short('h')) => Command::Print(USAGE.to_owned()),
        Some(Long("version") | Short('V')) => {
            Command::Print(concat!("ottla ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
        }
        Some(other) => return Err(refused(other.unexpected())),
    };
    match parser.next().map_err(refused)? {
        Some(more) => Err(refused(more.unexpected())),
        None => Ok(command),
    }
}

fn serve_arguments(mut parser: lexopt::Parser) -> std::result::Result<Command, lexopt::Error> {
    use lexopt::{
        Arg::{Long, Short},
        ValueExt,
    };
    let (mut file, mut sets, mut last) = (None, Vec::new(), Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("data") => last.push(("log.dirs".to_owned(), parser.value()?.string()?)),
            Long("listen") => last.push(("listeners".to_owned(), parser.value()?.string()?)),
            Long("config") => file = Some(PathBuf::from(parser.value()?)),
            Long("set") => {
                let text = parser.value()?.string()?;
                let Some((name, value)) = text.split_once('=') else {
                    return Err(
                        format!("--set {text:?} lacks \"=\": write --set NAME=VALUE").into(),
                    );
                };
                sets.push((name.to_owned(), value.to_owned()));
            }
            Long("help") | Short('h') => {
                return Ok(Command::Print(format!("{SERVE_USAGE}{}", config::help())));
            }
            other => return Err(other.unexpected()),
        }
    }
    sets.append(&mut last);
    Ok(Command::Serve { file, sets })
}

fn verify_arguments(mut parser: lexopt::Parser) -> std::result::Result<Command, lexopt::Error> {
    use lexopt::{
        Arg::{Long, Short, Value},
        ValueExt,
    };
    let (mut data, mut wanted) = (None, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("data") => data = Some(PathBuf::from(parser.value()?)),
            Long("help") | Short('h') => return Ok(Command::Print(verify::USAGE.to_owned())),
            Value(name) => wanted.push(name.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let data = data.ok_or("which directory? write --data DIR")?;
    Ok(Command::Verify { data, wanted })
}
