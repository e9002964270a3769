//! The HTTP server.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, StatusCode, Uri,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures_util::{Stream, stream};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tower_http::set_header::SetResponseHeaderLayer;

use super::CurrentSite;
use crate::EVENTS;

/// Time that a browser may take to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections at a time. The next one waits.
const MAX_CONNECTIONS: usize = 128;

/// Headers of every response. Pages set the rest of their content security policy themselves;
/// `frame-ancestors` only counts as a header.
const HEADERS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CONTENT_SECURITY_POLICY, "frame-ancestors 'none'"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Serves connections until accepting one fails. Axum's own server has neither a limit of connections nor
/// a timeout for headers.
pub(super) async fn serve_connections(
    listener: TcpListener,
    current: CurrentSite,
    host_names: HostNames,
) -> io::Error {
    let router = router(current, host_names);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { continue };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The client has gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return error,
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A connection that the browser breaks off is not an error.
            let _ = connection.await;
            drop(permit);
        });
    }
}

fn router(current: CurrentSite, host_names: HostNames) -> Router {
    let pages = get(page).with_state(current.clone());
    let mut router = Router::new()
        .route(&format!("/{EVENTS}"), get(events))
        .with_state(current)
        .fallback_service(pages)
        .layer(middleware::from_fn_with_state(Arc::new(host_names), check_host));
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        router = router.layer(SetResponseHeaderLayer::overriding(name, value));
    }
    router
}

/// Host names that the server answers to.
pub(super) struct HostNames(Vec<String>);

impl HostNames {
    pub(super) fn new(address: IpAddr, exposed: &[String]) -> Self {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "[::1]".into()];
        names.push(match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        });
        names.extend(exposed.iter().map(|name| name.to_ascii_lowercase()));
        Self(names)
    }

    /// Whether a `Host` header has one of the names, with any port or none.
    fn contains(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.0.iter().any(|name| host.strip_prefix(name.as_str()).is_some_and(is_port))
    }
}

/// Whether a text is empty or a port with its colon.
fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()),
        None => text.is_empty(),
    }
}

async fn check_host(
    State(host_names): State<Arc<HostNames>>,
    request: Request,
    next: Next,
) -> Response {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() {
        return (StatusCode::BAD_REQUEST, "The request has several Host headers.\n")
            .into_response();
    }
    if !host.is_some_and(|host| host_names.contains(host)) {
        let text = "This server does not have the requested host name. If others are to reach it by that \
                    name, serve with --expose NAME.\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    next.run(request).await
}

async fn page(State(current): State<CurrentSite>, uri: Uri) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let version = Arc::clone(&current.borrow());
    match version.dashboard.render(path) {
        Some(text) => ([(CONTENT_TYPE, content_type(path))], text).into_response(),
        None => (StatusCode::NOT_FOUND, "There is no such page.\n").into_response(),
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// The number of the site's version, and of each later one.
async fn events(
    State(current): State<CurrentSite>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let versions = stream::unfold((current, true), |(mut current, first)| async move {
        if !first && current.changed().await.is_err() {
            return None;
        }
        let number = current.borrow_and_update().number;
        Some((Ok(Event::default().data(number.to_string())), (current, false)))
    });
    Sse::new(versions).keep_alive(KeepAlive::default())
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Method};
    use http_body_util::BodyExt;
    use rstest::rstest;
    use tokio::sync::watch;
    use tower::ServiceExt;

    use super::*;
    use crate::{Dashboard, RunDetails, Site, serve::SiteVersion};

    fn site() -> Dashboard {
        let details = Box::new(|_: &Site, _| RunDetails::default());
        Dashboard::new(Site { live: true, ..Site::default() }, details)
    }

    fn served(current: CurrentSite) -> Router {
        router(current, HostNames::new([127, 0, 0, 1].into(), &["Lab.Example".to_owned()]))
    }

    async fn request(method: Method, path: &str, hosts: &[&str]) -> Response {
        let (_sender, current) =
            watch::channel(Arc::new(SiteVersion { number: 0, dashboard: site() }));
        let mut request = Request::builder().method(method).uri(path);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        served(current).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[rstest]
    #[case::address(&["127.0.0.1:8321"], 200)]
    #[case::name(&["localhost"], 200)]
    #[case::upper_case(&["LOCALHOST:1"], 200)]
    #[case::address_of_version_6(&["[::1]:8321"], 200)]
    #[case::exposed(&["lab.example:80"], 200)]
    #[case::other_name(&["evil.example"], 421)]
    #[case::longer_name(&["127.0.0.1.evil.example"], 421)]
    #[case::port_with_name(&["localhost:80.evil.example"], 421)]
    #[case::user(&["localhost@evil.example"], 421)]
    #[case::empty(&[""], 421)]
    #[case::none(&[], 421)]
    #[case::several(&["localhost", "evil.example"], 400)]
    #[tokio::test]
    async fn answers_to_its_own_host_names(#[case] hosts: &[&str], #[case] status: u16) {
        assert_eq!(request(Method::GET, "/", hosts).await.status(), status);
        assert_eq!(request(Method::GET, "/events", hosts).await.status(), status);
    }

    #[rstest]
    #[case::page(Method::GET, "/index.html", 200)]
    #[case::head(Method::HEAD, "/assets/site.css", 200)]
    #[case::parent(Method::GET, "/../Cargo.toml", 404)]
    #[case::encoded_parent(Method::GET, "/%2e%2e/Cargo.toml", 404)]
    #[case::post(Method::POST, "/index.html", 405)]
    #[case::post_to_events(Method::POST, "/events", 405)]
    #[tokio::test]
    async fn only_reads_pages(#[case] method: Method, #[case] path: &str, #[case] status: u16) {
        let response = request(method, path, &["localhost"]).await;
        assert_eq!(response.status(), status);
        for (name, value) in HEADERS {
            assert_eq!(response.headers()[&name], value, "{name}");
        }
    }

    #[tokio::test]
    async fn sends_the_type_of_a_page() {
        let response = request(Method::GET, "/", &["localhost"]).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    }

    #[tokio::test]
    async fn sends_an_event_for_each_version() {
        let (sender, current) =
            watch::channel(Arc::new(SiteVersion { number: 0, dashboard: site() }));
        let request = Request::builder().uri("/events").header(HOST, "localhost");
        let request = request.body(Body::empty()).unwrap();
        let response = served(current).oneshot(request).await.unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        let mut body = response.into_body();
        let mut next = async || {
            let frame = body.frame().await.unwrap().unwrap();
            String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
        };
        assert_eq!(next().await, "data: 0\n\n");
        sender.send_replace(Arc::new(SiteVersion { number: 1, dashboard: site() }));
        assert_eq!(next().await, "data: 1\n\n");
    }
}
