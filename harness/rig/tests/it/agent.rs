//! The connection to the agent, over a socket pair.

use dmarig_rig::agent::{AgentError, AgentLink};
use dmarig_wire::{Decoder, FrameError, Reply, Request, encode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// A link whose agent answers one request with `reply`.
fn link_to_agent(reply: Reply) -> AgentLink {
    let (near, mut far) = UnixStream::pair().unwrap();
    tokio::spawn(async move {
        let mut decoder = Decoder::default();
        let mut buffer = [0; 1024];
        while decoder.next_message::<Request>().unwrap().is_none() {
            let count = far.read(&mut buffer).await.unwrap();
            decoder.push(&buffer[..count]);
        }
        far.write_all(&encode(&reply).unwrap()).await.unwrap();
    });
    AgentLink::new(near)
}

#[tokio::test]
async fn returns_the_reply_to_a_request() {
    let mut link = link_to_agent(Reply::Files(vec!["a".into()]));
    let reply = link.request(&Request::ListFiles("/add".into())).await.unwrap();
    assert_eq!(reply, Reply::Files(vec!["a".into()]));
}

#[tokio::test]
async fn distinguishes_failure_and_time_out_of_the_agent() {
    let mut failing = link_to_agent(Reply::Failed { what: "no disk".into() });
    let error = failing.request(&Request::ReadLog).await.unwrap_err();
    assert!(matches!(error, AgentError::Failed(what) if what == "no disk"));

    let mut late = link_to_agent(Reply::NotInTime { what: "no node".into(), after_ms: 60_000 });
    let error = late.request(&Request::ReadLog).await.unwrap_err();
    assert!(matches!(error, AgentError::NotInTime { after_ms: 60_000, .. }));
}

#[tokio::test]
async fn assembles_a_reply_from_single_bytes() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut link = AgentLink::new(near);
    let bytes = encode(&Reply::Bye).unwrap();
    tokio::spawn(async move {
        for byte in bytes {
            far.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(link.receive().await.unwrap(), Reply::Bye);
    assert!(matches!(link.receive().await, Err(AgentError::Io(_))));
}

#[tokio::test]
async fn gives_up_on_endless_garbage() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut link = AgentLink::new(near);
    tokio::spawn(async move { while far.write_all(&[0x55; 4096]).await.is_ok() {} });
    assert!(matches!(link.receive().await, Err(AgentError::Frame(FrameError::Garbage { .. }))));
}

#[tokio::test]
async fn refuses_a_damaged_frame() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut link = AgentLink::new(near);
    let mut bytes = encode(&Reply::Bye).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    far.write_all(&bytes).await.unwrap();
    assert!(matches!(link.receive().await, Err(AgentError::Frame(FrameError::Checksum { .. }))));
}
