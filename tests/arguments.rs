//! The command line: what is refused, with which exit code, in one line that says what to do.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::time::Duration;

fn ottla(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary runs")
}

#[track_caller]
fn refused(args: &[&str], code: i32, line: &str) {
    let output = ottla(args);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors, format!("ottla: {line}\n"), "{args:?}");
    assert_eq!(output.status.code(), Some(code), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
}

fn printed(args: &[&str]) -> String {
    let output = ottla(args);
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{args:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn arguments_that_make_no_sense_end_with_2() {
    refused(&[], 2, "no command is given; see `ottla --help`");
    refused(
        &["sreve"],
        2,
        "unknown command \"sreve\"; see `ottla --help`",
    );
    refused(&["--dta"], 2, "invalid option '--dta'; see `ottla --help`");
    refused(
        &["settings", "x"],
        2,
        "unexpected argument \"x\"; see `ottla --help`",
    );
    refused(
        &["serve", "x"],
        2,
        "unexpected argument \"x\"; see `ottla --help`",
    );
    refused(
        &["serve", "--dta", "x"],
        2,
        "invalid option '--dta'; see `ottla --help`",
    );
    refused(
        &["serve", "--data"],
        2,
        "missing argument for option '--data'; see `ottla --help`",
    );
    let line = "--set \"a\" lacks \"=\": write --set NAME=VALUE; see `ottla --help`";
    refused(&["serve", "--set", "a"], 2, line);
}

#[test]
fn settings_that_are_refused_end_with_4() {
    let line = "unknown setting \"num.partition\"; the nearest known one is \"num.partitions\"";
    refused(&["serve", "--set", "num.partition=1"], 4, line);
    let line =
        "listeners=\"9092\": expected a comma-separated list of HOST:PORT or NAME://HOST:PORT";
    refused(&["serve", "--listen", "9092"], 4, line);
    let line = "cannot read /nowhere/server.properties: No such file or directory (os error 2)";
    refused(
        &["serve", "--config", "/nowhere/server.properties"],
        4,
        line,
    );
}

#[test]
fn the_flags_win_over_the_settings_that_they_stand_for() {
    // `--listen` is bad and `--set listeners` good: were the setting to win, the broker would start.
    let args = ["serve", "--listen", "x", "--set", "listeners=127.0.0.1:0"];
    assert_eq!(ottla(&args).status.code(), Some(4));
}

#[test]
fn help_explains_every_setting() {
    assert!(printed(&["--help"]).contains("ottla serve"));
    assert!(printed(&["-h"]).contains("ottla serve"));
    assert_eq!(
        printed(&["--version"]),
        concat!("ottla ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let help = printed(&["serve", "--help"]);
    let table = printed(&["settings"]);
    for setting in table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
    {
        let of_topics = table
            .split("| topic's setting |")
            .nth(1)
            .unwrap()
            .contains(&format!("| `{setting}`"));
        assert!(
            of_topics || help.contains(&format!("  {setting} = ")),
            "{setting}"
        );
    }
    assert!(
        help.lines().all(|line| line.chars().count() <= 100),
        "fits a terminal"
    );
}

/// Scripts wait for this line: half of it would give them half an address.
#[test]
fn the_line_that_tells_the_address_comes_by_one_write() {
    let data = tempfile::tempdir().unwrap();
    // Each datagram is one write.
    let (near, far) = UnixDatagram::pair().unwrap();
    near.set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut broker = Command::new(env!("CARGO_BIN_EXE_ottla"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .env("RUST_LOG", "off")
        .stderr(OwnedFd::from(far))
        .spawn()
        .unwrap();
    let mut line = [0; 100];
    let said = near.recv(&mut line);
    broker.kill().unwrap();
    broker.wait().unwrap();
    let line = String::from_utf8_lossy(&line[..said.unwrap()]);
    let port = line
        .strip_prefix("listening on 127.0.0.1:")
        .and_then(|rest| rest.strip_suffix('\n'));
    assert!(
        port.is_some_and(|port| port.parse::<u16>().is_ok()),
        "{line:?}"
    );
}
