//! Keeps the house: sizes, and where dangerous things may stand (DESIGN section 3). Every message says what to do.
//! The rules read lines, not syntax: they count on rustfmt's layout and on unit tests standing last in a file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

const FILE_LINES_MAX: usize = 520;
const FUNCTION_LINES_MAX: usize = 70;
/// Of a comment, which rustfmt leaves as it is; rows of tables may be longer.
const COMMENT_COLUMNS_MAX: usize = 120;

/// The only files that change, sync or remove what is durable, and the ways to lose data (L-numbers) each must guard.
const DURABLE: [(&str, &str); 15] = [
    ("src/broker/metadata.rs", "L7"),
    ("src/broker/open.rs", "L9"),
    ("src/control/rooms.rs", "L6 L9"),
    ("src/storage/checkpoint.rs", "L4 L8 L9"),
    ("src/storage/compaction/output.rs", "L5"),
    ("src/storage/index.rs", "hints only"),
    ("src/storage/log.rs", "L9 L10"),
    ("src/storage/pass.rs", "L2 L7"),
    ("src/storage/repair.rs", "L2 L5 L9"),
    ("src/storage/snapshot.rs", "hints only"),
    ("src/storage/log/swap.rs", "L5"),
    ("src/storage/trash.rs", "L3 L4 L5"),
    ("src/sync.rs", "L7 L9"),
    ("src/sys.rs", "L7 L9"),
    ("src/writer.rs", "L1 L7"),
];

/// What changes files, or makes a change durable.
const CHANGES_FILES: [&str; 9] = [
    "set_len",
    "remove_file",
    "remove_dir",
    "remove_dir_all",
    "rename",
    "sync_all",
    "sync_data",
    "sync_dir",
    "sync_entries",
];

/// Folders that read what strangers send: a panic there must be impossible, and say why it is.
const HOSTILE: [&str; 4] = ["src/wire/", "src/batch/", "src/compress/", "src/server/"];

/// The macros whose lines are data: messages, settings, error codes.
const TABLES: [&str; 4] = ["messages! {", "settings! {", "error_codes! {", "apis! {"];

// In pieces, so that this file does not break the rules that it states.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("unimple", "mented!"),
    concat!("to", "do!("),
    concat!("dbg", "!("),
    concat!("#[ig", "nore"),
];
const MACHINE_PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

/// The line without its comment and without what stands in its string literals.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if in_string => drop(chars.next()),
            '"' => in_string = !in_string,
            // A quote in a character literal opens no string.
            '\'' if !in_string && chars.peek() == Some(&'"') => drop(chars.next()),
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if !in_string => code.push(char),
            _ => {}
        }
    }
    code
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|char: char| !char.is_alphanumeric() && char != '_')
}

/// Whether this line keeps what follows for tests.
fn gates_tests(line: &str) -> bool {
    line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test,")
}

/// The number of lines before the unit tests, which are no part of the program.
fn program_lines(path: &str, lines: &[&str]) -> usize {
    if !path.starts_with("src/") {
        return 0;
    }
    let tests = lines
        .windows(2)
        .position(|pair| gates_tests(pair[0]) && pair[1].ends_with('{'));
    tests.unwrap_or(lines.len())
}

/// The files that this file declares as modules for tests only.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (beside, file) = path.rsplit_once('/').unwrap_or(("", path));
    let below = match file {
        "mod.rs" | "lib.rs" | "main.rs" => beside,
        _ => path.trim_end_matches(".rs"),
    };
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !gates_tests(line) {
            continue;
        }
        let next = lines.next().unwrap_or("");
        if let Some(elsewhere) = next.strip_prefix("#[path = \"") {
            found.push(format!("{beside}/{}", elsewhere.trim_end_matches("\"]")));
        } else if let Some(name) = next
            .trim_start_matches("pub ")
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            found.push(format!("{below}/{name}.rs"));
        }
    }
    found
}

fn is_function(code: &str) -> bool {
    words(code)
        .find(|word| !["pub", "crate", "super", "const", "unsafe", "extern", ""].contains(word))
        == Some("fn")
}

/// (first line, length) of each function: it ends at the brace that is indented like its start.
fn functions(lines: &[&str]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let whole = line.ends_with('}') || line.ends_with(';');
        if !is_function(&code(line)) || whole {
            continue;
        }
        let ends = |line: &&str| {
            line.strip_prefix(indent).is_some_and(|rest| {
                rest.starts_with('}') || rest.starts_with(')') && rest.ends_with(';')
            })
        };
        let length = lines[at + 1..]
            .iter()
            .position(ends)
            .map_or(lines.len() - at, |more| more + 2);
        found.push((at + 1, length));
    }
    found
}

/// What is wrong with any text file.
fn check_text(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut say = |what: String| wrong.push(format!("{path}:{}: {what}", number + 1));
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            say(format!(
                "`{word}`: finish it, or file an issue and leave no mark here"
            ));
        }
        for machine in MACHINE_PATHS
            .iter()
            .filter(|machine| line.contains(**machine))
        {
            say(format!(
                "`{machine}`: a path of one machine; use a relative one"
            ));
        }
        if line.contains('\t') && !path.ends_with("Makefile") {
            say("a tab: indent by spaces".to_owned());
        }
    }
    wrong
}

/// What is wrong with a Rust file.
fn check_rust(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut wrong = Vec::new();
    if lines.len() > FILE_LINES_MAX {
        wrong.push(format!(
            "{path}: {} lines, at most {FILE_LINES_MAX}: give a part of it a file of its own",
            lines.len()
        ));
    }
    if !text.starts_with("//!") {
        wrong.push(format!(
            "{path}: begin with `//!` and say what this module owns and what always holds"
        ));
    }
    for (line, length) in functions(&lines)
        .into_iter()
        .filter(|(_, length)| *length > FUNCTION_LINES_MAX)
    {
        wrong.push(format!("{path}:{line}: a function of {length} lines, at most {FUNCTION_LINES_MAX}: name its steps"));
    }
    let comments = lines
        .iter()
        .zip(1..)
        .filter(|(line, _)| line.trim_start().starts_with("//") && !line.contains('|'));
    for (line, number) in comments {
        let columns = line.chars().count();
        if columns > COMMENT_COLUMNS_MAX {
            wrong.push(format!(
                "{path}:{number}: a comment of {columns} columns, at most {COMMENT_COLUMNS_MAX}: break it"
            ));
        }
    }
    for number in 0..program_lines(path, &lines) {
        let before = if number == 0 { "" } else { lines[number - 1] };
        let line_wrong = check_program_line(path, lines[number], before);
        wrong.extend(line_wrong.map(|what| format!("{path}:{}: {what}", number + 1)));
    }
    wrong
}

/// The rules on where dangerous things may stand, for one line of the program itself.
fn check_program_line(path: &str, line: &str, before: &str) -> impl Iterator<Item = String> {
    let code = code(line);
    let system = words(&code).any(|word| word == "unsafe") || code.contains("cfg(target_os");
    let durable = words(&code).any(|word| CHANGES_FILES.contains(&word));
    let panics = code.contains(".unwrap()") || code.contains(".expect(");
    let excused = [line, before]
        .iter()
        .any(|line| line.contains("// cannot fail:"));
    [
        (system && path != "src/sys.rs")
            .then(|| "`unsafe` and `cfg(target_os` stand in src/sys.rs only: give the call a safe function there".to_owned()),
        (durable && !DURABLE.iter().any(|(file, _)| *file == path)).then(|| {
            "changes durable files: call a file of tests/tidy.rs's DURABLE list, or add this one with the ways to \
             lose data (L1..L10) that it guards"
                .to_owned()
        }),
        (panics && !excused && HOSTILE.iter().any(|folder| path.starts_with(folder)))
            .then(|| "may panic on what a stranger sends: give an error, or say `// cannot fail: why`".to_owned()),
    ]
    .into_iter()
    .flatten()
}

/// Lines of code without blank lines, comments and tests: (of tables, all others).
fn code_lines(path: &str, text: &str) -> (usize, usize) {
    let lines: Vec<&str> = text.lines().collect();
    let (mut tables, mut others, mut in_table) = (0, 0, false);
    for line in &lines[..program_lines(path, &lines)] {
        in_table |= TABLES.iter().any(|start| line.starts_with(start));
        if !code(line).trim().is_empty() {
            *(if in_table { &mut tables } else { &mut others }) += 1;
        }
        in_table &= *line != "}";
    }
    (tables, others)
}

/// Every text file of the repository, by its path from the root.
fn files(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        // `data` is what `make run` leaves behind.
        if path.is_dir() && !["target", "data", ".git"].contains(&&*name) {
            files(root, &path, found);
        } else if path.is_file() {
            let relative = path
                .strip_prefix(root)
                .expect("below the root")
                .to_string_lossy()
                .into_owned();
            // Golden bytes and other binary files have no lines to check.
            if let Ok(text) = fs::read_to_string(&path) {
                found.insert(relative, text);
            }
        }
    }
}

fn check(path: &str, text: &str) -> Vec<String> {
    let mut wrong = check_text(path, text);
    if path.ends_with(".rs") {
        wrong.extend(check_rust(path, text));
    }
    wrong
}

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    files(root, root, &mut found);
    // Test modules keep the rules for tests, as the files below tests/ do.
    let tests: Vec<String> = found
        .iter()
        .flat_map(|(path, text)| test_modules(path, text))
        .collect();
    for test in tests {
        assert!(found.contains_key(&test), "no file {test}");
        // With the modules of its own.
        let below = format!("{}/", test.trim_end_matches(".rs"));
        let its = |path: &String| *path == test || path.starts_with(&below);
        for path in found
            .keys()
            .filter(|path| its(path))
            .cloned()
            .collect::<Vec<_>>()
        {
            let text = found.remove(&path).unwrap_or_default();
            found.insert(format!("tests of {path}"), text);
        }
    }
    let mut wrong: Vec<String> = found
        .iter()
        .flat_map(|(path, text)| check(path, text))
        .collect();
    for (path, _) in DURABLE {
        if !found
            .get(path)
            .is_some_and(|text| CHANGES_FILES.iter().any(|word| text.contains(word)))
        {
            wrong.push(format!(
                "{path} changes no durable file: take it off tests/tidy.rs's DURABLE list"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));

    let (mut tables, mut cli, mut others) = (0, 0, 0);
    for (path, text) in found.iter().filter(|(path, _)| path.ends_with(".rs")) {
        let (table_lines, other_lines) = code_lines(path, text);
        tables += table_lines;
        *(if path.starts_with("src/cli/") {
            &mut cli
        } else {
            &mut others
        }) += other_lines;
    }
    // Past the capture of output, which would hide the report of a test that passes.
    let _ = writeln!(
        std::io::stderr(),
        "size: {others} lines of code (blank lines, comments, tests apart), {tables} of tables, {cli} of tools"
    );
}

#[test]
fn every_rule_can_fail() {
    let says = |path: &str, text: &str, what: &str| {
        let wrong = check(path, text);
        assert!(
            wrong.len() == 1 && wrong[0].contains(what),
            "{path}: {text:?} gave {wrong:?}, not {what:?}"
        );
    };
    let head = "//! Head.\n";
    says("src/a.rs", &head.repeat(FILE_LINES_MAX + 1), "521 lines");
    says("src/a.rs", "fn a() {}\n", "begin with `//!`");
    let long = "    x();\n".repeat(FUNCTION_LINES_MAX - 1);
    says(
        "tests/a.rs",
        &format!("{head}pub(crate) fn a() {{\n{long}}}\n"),
        "a function of 71 lines",
    );
    let long = "        x();\n".repeat(FUNCTION_LINES_MAX - 3);
    says(
        "src/a.rs",
        &format!("{head}impl A {{\n    fn a(\n        b: B,\n    ) {{\n{long}    }}\n}}\n"),
        "src/a.rs:3: a function of 71",
    );
    says(
        "src/a.rs",
        &format!("{head}unsafe impl Send for A {{}}\n"),
        "src/sys.rs only",
    );
    says(
        "src/a.rs",
        &format!("{head}#[cfg(target_os = \"linux\")]\n"),
        "src/sys.rs only",
    );
    for call in [
        "file.set_len(1)",
        "fs::remove_file(p)",
        "fs::rename(a, b)",
        "file.sync_all()",
        "sys::sync_dir(d)",
    ] {
        says(
            "src/a.rs",
            &format!("{head}fn a() {{\n    {call};\n}}\n"),
            "DURABLE list",
        );
    }
    for call in ["a.unwrap()", "a.expect(\"b\")"] {
        says(
            "src/wire/a.rs",
            &format!("{head}fn a() {{\n    {call};\n}}\n"),
            "src/wire/a.rs:3: may panic",
        );
    }
    for word in UNFINISHED {
        says("README.md", &format!("{word} x)\n"), "finish it");
    }
    for path in MACHINE_PATHS {
        says(
            "tests/clients/a.py",
            &format!("open(\"{path}x\")\n"),
            "a path of one machine",
        );
    }
    says("src/a.rs", &format!("{head}// a\tb\n"), "a tab");
    let long = "a".repeat(COMMENT_COLUMNS_MAX - 2);
    says("tests/a.rs", &format!("{head}// {long}\n"), "121 columns");
}

#[test]
fn what_is_tidy_passes() {
    let row = format!("//! | {} |\n", "a".repeat(COMMENT_COLUMNS_MAX));
    let fine = [
        ("src/sys.rs", "//! Head.\nunsafe fn a() {}\n"),
        (
            "src/writer.rs",
            "//! Head.\nfn a() {\n    file.sync_data();\n}\n",
        ),
        (
            "src/a.rs",
            "//! Head.\nfn a() {\n    say(\"unsafe to rename\"); // set_len\n    a.unwrap();\n}\n",
        ),
        (
            "src/a.rs",
            "//! Head.\n#[cfg(test)]\nmod tests {\n    fn a() {\n        fs::rename(a, b).unwrap();\n    }\n}\n",
        ),
        (
            "src/wire/a.rs",
            "//! Head.\n// cannot fail: four bytes\nlet a = b.unwrap();\nlet c = '\"'; // d\n",
        ),
        ("src/a.rs", &row),
        ("Makefile", "a:\n\tb\n"),
    ];
    for (path, text) in fine {
        assert_eq!(check(path, text), [""; 0], "{path}: {text}");
    }
}

#[test]
fn test_modules_are_told_from_the_program() {
    let text = "#[cfg(test)]\nmod golden;\nmod table;\n#[cfg(all(test, feature = \"zstd\"))]\n\
                #[path = \"check_tests.rs\"]\nmod tests;\n#[cfg(test)]\nmod more {\n}\n";
    assert_eq!(
        test_modules("src/a/mod.rs", text),
        ["src/a/golden.rs", "src/a/check_tests.rs"]
    );
    assert_eq!(
        test_modules("src/a/b.rs", text),
        ["src/a/b/golden.rs", "src/a/check_tests.rs"]
    );
    assert_eq!(
        program_lines("src/a/mod.rs", &text.lines().collect::<Vec<_>>()),
        6
    );
}

#[test]
fn code_is_counted_without_comments_tests_and_tables() {
    let text =
        "//! Head.\n\nmessages! {\n    a\n}\nfn b() {}\n// c\n#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(code_lines("src/a.rs", text), (3, 1));
    assert_eq!(code_lines("tests/a.rs", text), (0, 0));
}

#[test]
fn functions_are_measured_from_signature_to_brace() {
    let text =
        "fn a() {\n    b();\n}\n\ntrait C {\n    fn d(\n        e: F,\n    );\n    fn g();\n}\n";
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(functions(&lines), [(1, 3), (6, 3)]);
}
