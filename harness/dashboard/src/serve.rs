//! Serves a site to the one who develops on this machine, and makes it anew as records come.
//!
//! What runs here is told to everybody who can reach it, so that is this machine alone unless somebody
//! says otherwise. A page elsewhere could make a browser of this machine ask for it by a name of its own
//! (DNS rebinding): so the name that is asked for must be one of ours.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dmarig_history::{History, HistoryError};
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::interval,
};

use crate::{
    Dashboard, DashboardError, EVENTS, Sources,
    gather::{News, add_records, gather},
};

/// How often it is looked whether there is something new.
const LOOK: Duration = Duration::from_secs(1);
/// How long a browser may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections at once; the next one waits.
const CONNECTIONS: usize = 128;

/// Where to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}`: write a port, or an address and a port, as in 127.0.0.1:8321");
        if let Ok(port) = text.parse() {
            return Ok(Self(SocketAddr::from(([127, 0, 0, 1], port))));
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric.parse().map(Self).map_err(|_| wrong())
    }
}

type Body = BoxBody<Bytes, Infallible>;
type Current = watch::Receiver<Arc<Version>>;

/// A site as it was at some moment.
struct Version {
    number: u64,
    dashboard: Dashboard,
}

/// Serves until it is interrupted. `exposed` are the names by which other machines know this one; without
/// one, only an address of this machine alone is served at.
///
/// # Errors
/// Bad usage, or what the system says.
pub async fn serve(
    sources: Sources,
    address: Address,
    exposed: &[String],
    serving: impl FnOnce(&SocketAddr),
) -> Result<(), DashboardError> {
    let Address(address) = address;
    if !address.ip().is_loopback() && exposed.is_empty() {
        return Err(DashboardError::NotExposed { address });
    }
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| DashboardError::Bind { address, source })?;
    let address = listener.local_addr()?;
    if sources.add {
        take(sources.clone()).await?;
    }
    let (revision, first) = make(sources.clone()).await?;
    let watcher = Watcher::new(sources, revision);
    let (sender, current) = watch::channel(Arc::new(Version { number: 0, dashboard: first }));
    serving(&address);
    let names: Arc<Names> = Arc::new(Names::new(address.ip(), exposed));
    tokio::select! {
        () = renew(watcher, sender) => Ok(()),
        error = accept(listener, current, names) => Err(DashboardError::Serve(error)),
        ended = tokio::signal::ctrl_c() => Ok(ended?),
    }
}

/// Puts a site together beside everything else, since that may take some seconds. Also tells the revision
/// of the history that it shows at least.
async fn make(sources: Sources) -> Result<(String, Dashboard), DashboardError> {
    let made = tokio::task::spawn_blocking(move || {
        // First: what is put in meanwhile may be shown or not, and makes another revision.
        let revision = revision(&sources)?;
        Ok::<_, HistoryError>((revision, gather(&sources, true)?))
    });
    Ok(made.await??)
}

fn revision(sources: &Sources) -> Result<String, HistoryError> {
    History::open(&sources.history)?.revision()
}

/// Puts new records into the history.
async fn take(sources: Sources) -> Result<News, DashboardError> {
    tokio::task::spawn_blocking(move || add_records(&sources)).await?
}

/// Makes the site anew when something has changed.
async fn renew(mut watcher: Watcher, sender: watch::Sender<Arc<Version>>) {
    let mut clock = interval(LOOK);
    loop {
        clock.tick().await;
        match watcher.look().await {
            Ok(Some(dashboard)) => {
                let number = sender.borrow().number + 1;
                sender.send_replace(Arc::new(Version { number, dashboard }));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("the pages stay as they are: {error}"),
        }
    }
}

/// Sees what is new. Others may put it into the history before this one does, and this one writes to the
/// history as well: so that a file has changed is reason to look at the history's revision, and only
/// another revision is news.
struct Watcher {
    sources: Sources,
    /// What files were like at the last look; `None` where it has to be looked again in any case.
    seen: Option<Marks>,
    /// Whether records are looked at again, whatever is seen: of a run that ends, nothing changes.
    pending: bool,
    /// The revision of which there are pages.
    shown: String,
}

impl Watcher {
    fn new(sources: Sources, shown: String) -> Self {
        Self { sources, seen: None, pending: true, shown }
    }

    /// The site, if it is another one than was shown.
    async fn look(&mut self) -> Result<Option<Dashboard>, DashboardError> {
        let now = Marks::of(&self.sources);
        let seen = self.seen.take();
        let mut any = seen.as_ref() != Some(&now);
        let records = seen.is_none_or(|seen| seen.records != now.records);
        if self.sources.add && (records || self.pending) {
            self.pending = true;
            match take(self.sources.clone()).await {
                Ok(news) => {
                    self.pending = news.going_on;
                    any |= news.any;
                }
                Err(error) => tracing::warn!("no record was added: {error}"),
            }
        }
        let made = if any { self.another().await? } else { None };
        // What failed is tried again.
        self.seen = Some(now);
        Ok(made)
    }

    async fn another(&mut self) -> Result<Option<Dashboard>, DashboardError> {
        let sources = self.sources.clone();
        if tokio::task::spawn_blocking(move || revision(&sources)).await?? == self.shown {
            return Ok(None);
        }
        let (revision, dashboard) = make(self.sources.clone()).await?;
        self.shown = revision;
        Ok(Some(dashboard))
    }
}

/// Sizes and times of what the pages are made of.
#[derive(PartialEq, Eq)]
struct Marks {
    /// Of what is put into the history.
    records: Vec<Mark>,
    /// Of the history and of what was said of its alerts, whoever writes them.
    history: Vec<Mark>,
}

type Mark = (PathBuf, u64, Option<SystemTime>);

impl Marks {
    fn of(sources: &Sources) -> Self {
        let mark = |path: PathBuf| {
            let about = std::fs::metadata(&path).ok()?;
            Some((path, about.len(), about.modified().ok()))
        };
        let mut log = sources.history.as_os_str().to_owned();
        log.push("-wal");
        let said = sources.history.with_extension("alerts.jsonl");
        let history = vec![sources.history.clone(), log.into(), said];
        let mut records = Vec::new();
        if sources.add {
            let entries = std::fs::read_dir(&sources.runs).into_iter().flatten().flatten();
            records.extend(entries.map(|entry| entry.path().join("cells.jsonl")));
            records.sort();
        }
        let marks = |paths: Vec<PathBuf>| paths.into_iter().filter_map(mark).collect();
        Self { records: marks(records), history: marks(history) }
    }
}

async fn accept(listener: TcpListener, current: Current, names: Arc<Names>) -> io::Error {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { continue };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // A connection that is gone before it is taken is nobody's trouble.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return error,
        };
        let (current, names) = (current.clone(), Arc::clone(&names));
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &current, &names);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            // What a browser breaks off is of no interest.
            let _ = connection.await;
            drop(permit);
        });
    }
}

/// The names by which this server may be asked.
struct Names(Vec<String>);

impl Names {
    fn new(address: IpAddr, exposed: &[String]) -> Self {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "[::1]".into()];
        names.push(match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        });
        names.extend(exposed.iter().map(|name| name.to_ascii_lowercase()));
        Self(names)
    }

    /// Whether a `Host` is one of them, with any port or none.
    fn has(&self, host: &str) -> bool {
        let port = |rest: &str| {
            rest.is_empty()
                || rest
                    .strip_prefix(':')
                    .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let host = host.to_ascii_lowercase();
        self.0.iter().any(|name| host.strip_prefix(name.as_str()).is_some_and(port))
    }
}

fn answer<B>(request: &Request<B>, current: &Current, names: &Names) -> Response<Body> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(|host| names.has(host)) {
        let text = "This is not the host that was asked for. If others are to reach it by that name, serve with --expose NAME.\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let path = request.uri().path().trim_start_matches('/');
    if path == EVENTS {
        return events(current.clone());
    }
    let path = if path.is_empty() { "index.html" } else { path };
    let version = Arc::clone(&current.borrow());
    match version.dashboard.render(path) {
        Some(text) => respond(StatusCode::OK, kind(path), Full::new(Bytes::from(text)).boxed()),
        None => plain(StatusCode::NOT_FOUND, "There is no such page.\n"),
    }
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    respond(
        status,
        "text/plain; charset=utf-8",
        Full::new(Bytes::from_static(text.as_bytes())).boxed(),
    )
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Pages say the rest themselves; this one only counts where it stands here.
        (header::CONTENT_SECURITY_POLICY, "frame-ancestors 'none'"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The version that is served, and each that comes after it.
fn events(current: Current) -> Response<Body> {
    let frames = stream::unfold((current, true), |(mut current, first)| async move {
        if !first && current.changed().await.is_err() {
            return None;
        }
        let number = current.borrow_and_update().number;
        let frame = Frame::data(Bytes::from(format!("data: {number}\n\n")));
        Some((Ok::<_, Infallible>(frame), (current, false)))
    });
    respond(StatusCode::OK, "text/event-stream", BodyExt::boxed(StreamBody::new(frames)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dmarig_demo::synthetic_year;
    use dmarig_history::{AlertEvent, AlertState, EVENT_SCHEMA, ImportOptions};
    use dmarig_records::{HostFacts, RECORD_SCHEMA, Recorder, RunMeta};

    use crate::{RunDetails, Site};

    use super::*;

    fn current() -> (watch::Sender<Arc<Version>>, Current) {
        let details = Box::new(|_: &Site, _| RunDetails::default());
        let site = Site { live: true, ..Site::default() };
        watch::channel(Arc::new(Version { number: 0, dashboard: Dashboard::new(site, details) }))
    }

    fn ask(method: Method, path: &str, host: Option<&str>) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let names = Names::new([127, 0, 0, 1].into(), &["Lab.Example".to_owned()]);
        answer(&request.body(()).unwrap(), &current().1, &names)
    }

    #[test]
    fn only_our_own_names_are_answered() {
        for (host, status) in [
            (Some("127.0.0.1:8321"), 200),
            (Some("localhost"), 200),
            (Some("LOCALHOST:1"), 200),
            (Some("[::1]:8321"), 200),
            (Some("lab.example:80"), 200),
            (Some("evil.example"), 421),
            (Some("127.0.0.1.evil.example"), 421),
            (Some("localhost:80.evil.example"), 421),
            (Some("localhost@evil.example"), 421),
            (Some(""), 421),
            (None, 421),
        ] {
            assert_eq!(ask(Method::GET, "/", host).status(), status, "{host:?}");
        }
    }

    #[test]
    fn pages_are_read_and_nothing_else() {
        let status = |method, path| ask(method, path, Some("localhost")).status().as_u16();
        assert_eq!(status(Method::GET, "/index.html"), 200);
        assert_eq!(status(Method::HEAD, "/assets/site.css"), 200);
        assert_eq!(status(Method::GET, "/../Cargo.toml"), 404);
        assert_eq!(status(Method::GET, "/%2e%2e/Cargo.toml"), 404);
        assert_eq!(status(Method::POST, "/index.html"), 405);
        let page = ask(Method::GET, "/", Some("localhost"));
        assert_eq!(page.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(page.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    }

    #[test]
    fn addresses_are_read_with_their_defaults() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.0.to_string());
        assert_eq!(read("8321").unwrap(), "127.0.0.1:8321");
        assert_eq!(read("localhost:80").unwrap(), "127.0.0.1:80");
        assert_eq!(read("0.0.0.0:80").unwrap(), "0.0.0.0:80");
        assert_eq!(read("[::1]:80").unwrap(), "[::1]:80");
        assert!(read("somewhere:80").is_err());
    }

    #[tokio::test]
    async fn a_page_is_told_of_each_version() {
        let (sender, current) = current();
        let mut body = events(current).into_body();
        let mut next = async || {
            let frame = body.frame().await.unwrap().unwrap();
            String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
        };
        assert_eq!(next().await, "data: 0\n\n");
        let details = Box::new(|_: &Site, _| RunDetails::default());
        let dashboard = Dashboard::new(Site::default(), details);
        sender.send_replace(Arc::new(Version { number: 1, dashboard }));
        assert_eq!(next().await, "data: 1\n\n");
    }

    #[tokio::test]
    async fn other_machines_are_served_only_if_that_is_said() {
        let nowhere = Path::new("/nonexistent");
        let sources =
            Sources { history: nowhere.into(), runs: nowhere.into(), add: false, detailed: 0 };
        let address = "0.0.0.0:0".parse().unwrap();
        let error = serve(sources, address, &[], |_| ()).await.unwrap_err();
        assert!(matches!(error, DashboardError::NotExposed { .. }), "{error}");
    }

    /// A record without cells, of a run that is over; gives its directory.
    fn record(runs: &Path) -> PathBuf {
        let mut meta = RunMeta {
            schema: RECORD_SCHEMA,
            id: String::new(),
            started: 0,
            dmarig: String::new(),
            command: Vec::new(),
            host: HostFacts::default(),
            cases: Vec::new(),
            rules: String::new(),
            reference: None,
            planned: None,
            options: None,
        };
        Recorder::create(runs, &mut meta).unwrap().directory().to_owned()
    }

    #[tokio::test]
    async fn what_anybody_adds_is_shown_and_nothing_twice() {
        for add in [true, false] {
            let place = tempfile::tempdir().unwrap();
            let at = |name: &str| place.path().join(name);
            let (history, runs) = (at("history.sqlite"), at("runs"));
            let others = || History::create(&history).unwrap();
            let mut year = synthetic_year(1);
            others().insert_runs([&year.next().unwrap()]).unwrap();
            let sources =
                Sources { history: history.clone(), runs: runs.clone(), add, detailed: 0 };
            let (revision, _) = make(sources.clone()).await.unwrap();
            let mut watcher = Watcher::new(sources, revision);
            let mut news = async |expected: bool, what: &str| {
                assert_eq!(watcher.look().await.unwrap().is_some(), expected, "{what}");
                for _ in 0..3 {
                    assert!(watcher.look().await.unwrap().is_none(), "{what}, once more");
                }
            };
            news(false, "what was there").await;
            others().insert_runs([&year.next().unwrap()]).unwrap();
            news(true, "a run that was merged").await;
            others().import(&[record(&runs)], ImportOptions::default()).unwrap();
            news(true, "a record that somebody else has added first").await;
            let event = AlertEvent {
                schema: EVENT_SCHEMA,
                id: "said".into(),
                time: 0,
                subject: String::new(),
                run: String::new(),
                state: AlertState::Confirmed,
                note: String::new(),
                author: String::new(),
            };
            others().add_events(&[event]).unwrap();
            news(true, "what was said of an alert").await;
            record(&runs);
            news(add, "a record that nobody has added").await;
        }
    }
}
