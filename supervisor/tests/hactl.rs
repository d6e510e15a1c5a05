//! The real `hactl` against a real member: contexts, watching, waiting, the debug bundle.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test did not expect must end it; the helpers of tests are tests too"
)]

mod daemon;

use daemon::*;

/// Exit code, standard output, standard error.
fn run(daemon: &Daemon, args: &[&str]) -> (i32, String, String) {
    let output = hactl(daemon, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_clusters_is_chosen_by_name() {
    let (_dir, daemon) = one_member().await;
    let one = std::fs::read_to_string(daemon.home.hactl()).unwrap();
    let gone = one.replace(&daemon.config.member.api_addr, &free_tcp());
    let several = daemon.home.dir().join("several.toml");
    std::fs::write(&several, format!("current = \"gone\"\n[context.gone]\n{gone}\n[context.here]\n{one}\n"))
        .unwrap();
    let several = several.to_str().unwrap();
    let run = |args: &[&str]| run(&daemon, &[&["--context", several, "--timeout", "1s"], args].concat());

    assert_eq!(run(&["status"]).0, 3, "nobody is there");
    assert_eq!(run(&["--cluster", "here", "status"]).0, 0);
    let (code, _, said) = run(&["--cluster", "hree", "status"]);
    assert!(code == 2 && said.contains("there is no context \"hree\"; did you mean `here`?"), "{said}");
    assert!(run(&["context", "list"]).1.contains("*         gone   https://"));
    let (code, said, _) = run(&["context", "use", "here"]);
    assert_eq!((code, said.as_str()), (0, format!("{several}: here is the current context\n").as_str()));
    assert_eq!(run(&["status"]).0, 0);
    assert_eq!(run(&["context", "use", "hre"]).0, 2);
    let (code, said, _) = run(&["context", "show", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &shown["name"], &shown["current"]), (0, &"here".into(), &true.into()));
    assert!(shown["key"].as_str().unwrap().ends_with(".key"), "{shown}");
    let key = std::fs::read_to_string(shown["key"].as_str().unwrap()).unwrap();
    assert!(!said.contains(key.lines().nth(1).unwrap()), "{said}");
    daemon.end().await;
}
