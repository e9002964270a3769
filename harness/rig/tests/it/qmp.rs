//! QMP against a server that follows a script.

use std::time::Duration;

use dmarig_rig::qmp::{Events, Qmp, QmpError, QueryBlockstats, QueryCommandLineOptions};
use qapi::qmp::{cont, qom_get, query_version};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

const MINUTE: Duration = Duration::from_secs(60);
const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"micro":3,"minor":1,"major":11},"package":""},"capabilities":["oob"]}}"#;

/// Serves QMP: a line that contains the first text of a pair is answered with the second one.
async fn connect(script: &[(&str, &str)], deadline: Duration) -> (Qmp, Events) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let script: Vec<(String, String)> =
        script.iter().map(|(want, answer)| ((*want).to_owned(), (*answer).to_owned())).collect();
    tokio::spawn(async move {
        let (read, mut write) = tokio::io::split(far);
        let mut lines = BufReader::new(read).lines();
        write.write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = script.iter().find(|(want, _)| line.contains(want.as_str()));
            let answer = answer.map_or(r#"{"return":{}}"#, |(_, answer)| answer.as_str());
            if !answer.is_empty() {
                write.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
            }
        }
    });
    Qmp::open(near, None, deadline).await.unwrap()
}

#[tokio::test]
async fn keeps_events_that_are_unknown() {
    let event =
        r#"{"timestamp":{"seconds":1,"microseconds":2},"event":"FROM_THE_FUTURE","data":{"a":1}}"#;
    let script = [("\"cont\"", &*format!("{event}\r\n{{\"return\":{{}}}}"))];
    let (mut qmp, mut events) = connect(&script, MINUTE).await;
    qmp.execute(cont {}).await.unwrap();
    let event = events.recv().await.unwrap();
    assert_eq!((event.name.as_str(), &event.data["a"]), ("FROM_THE_FUTURE", &1.into()));
}

#[tokio::test]
async fn stays_usable_after_a_refusal() {
    let script = [("qom-get", r#"{"error":{"class":"GenericError","desc":"no such property"}}"#)];
    let (mut qmp, _events) = connect(&script, MINUTE).await;
    let get = qom_get { path: "/machine".into(), property: "x".into() };
    let error = qmp.execute(get).await.unwrap_err();
    assert!(
        matches!(&error, QmpError::Refused { command: "qom-get", reason } if reason == "no such property"),
        "{error}"
    );
    qmp.execute(cont {}).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closes_the_connection_after_a_time_out() {
    let (mut qmp, _events) = connect(&[("query-version", "")], Duration::from_secs(5)).await;
    assert!(matches!(qmp.execute(query_version {}).await, Err(QmpError::Late { .. })));
    assert!(matches!(qmp.execute(cont {}).await, Err(QmpError::Closed)));
}

#[tokio::test]
async fn reads_answers_with_fields_of_other_versions() {
    let script = [
        (
            "query-version",
            r#"{"return":{"qemu":{"micro":3,"minor":1,"major":11,"new":1},"package":"x"}}"#,
        ),
        (
            "query-blockstats",
            r#"{"return":[{"stats":{"failed_rd_operations":2,"failed_wr_operations":3,"new":9}},{}]}"#,
        ),
        (
            "query-command-line-options",
            r#"{"return":[{"option":"sandbox","parameters":[{"name":"x","type":"new"}]}]}"#,
        ),
    ];
    let (mut qmp, _events) = connect(&script, MINUTE).await;
    let version = qmp.execute(query_version {}).await.unwrap();
    assert_eq!((version.qemu.major, version.package.as_str()), (11, "x"));
    let disks = qmp.execute(QueryBlockstats {}).await.unwrap();
    assert_eq!(disks.iter().map(|disk| disk.stats.total()).collect::<Vec<_>>(), [5, 0]);
    let options = qmp.execute(QueryCommandLineOptions {}).await.unwrap();
    assert_eq!(options[0].option, "sandbox");
}

#[tokio::test]
async fn logs_both_directions() {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let (read, mut write) = tokio::io::split(far);
        let mut lines = BufReader::new(read).lines();
        write.write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
        while let Ok(Some(_)) = lines.next_line().await {
            write.write_all(b"{\"return\":{}}\r\n").await.unwrap();
        }
    });
    let log = tempfile::NamedTempFile::new().unwrap();
    let opened = Qmp::open(near, Some(log.reopen().unwrap()), MINUTE).await;
    let (mut qmp, _events) = opened.unwrap();
    qmp.execute(cont {}).await.unwrap();
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(text.starts_with("< {\"QMP\""), "{text}");
    assert!(text.lines().any(|line| line.starts_with("> ") && line.contains("cont")), "{text}");
}

#[tokio::test]
async fn refuses_a_server_that_does_not_speak_qmp() {
    let (near, mut far) = tokio::io::duplex(1 << 10);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let opened = Qmp::open(near, None, MINUTE).await;
    assert!(matches!(opened, Err(QmpError::Greeting(_))));
}

#[tokio::test]
async fn reports_a_closed_connection() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(far);
        write.write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
        let mut buffer = [0; 256];
        let _ = read.read(&mut buffer).await.unwrap();
        write.write_all(b"{\"return\":{}}\r\n").await.unwrap();
    });
    let (mut qmp, mut events) = Qmp::open(near, None, MINUTE).await.unwrap();
    server.await.unwrap();
    assert!(matches!(qmp.execute(cont {}).await, Err(QmpError::Closed)));
    assert!(events.recv().await.is_none());
}
