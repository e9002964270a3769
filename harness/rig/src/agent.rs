//! The connection to the agent: each request gets one reply.

use dmarig_wire::{Decoder, FrameError, Reply, Request, encode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Why a request to the agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The bytes are not a message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The channel was closed or failed.
    #[error("the agent's channel ended: {0}")]
    Io(#[from] std::io::Error),
    /// A reply to another request.
    #[error("the agent sent {found} where {expected} was due")]
    Unexpected {
        /// The expected kind of reply.
        expected: &'static str,
        /// The kind of the reply.
        found: &'static str,
    },
    /// The guest's kernel did not provide in time what the agent waited for.
    #[error("{what}")]
    NotInTime {
        /// What is missing.
        what: String,
        /// How long the agent waited, in milliseconds.
        after_ms: u64,
    },
    /// The agent could not carry the request out.
    #[error("{0}")]
    Failed(String),
}

/// A connection to one guest's agent.
#[derive(Debug)]
pub struct AgentLink {
    socket: UnixStream,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl AgentLink {
    /// Uses `socket`, whose other end is the guest's second UART.
    #[must_use]
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, decoder: Decoder::default(), buffer: vec![0; 64 << 10] }
    }

    /// Waits for the next message; may be dropped and called again.
    ///
    /// # Errors
    /// [`AgentError::Frame`] or [`AgentError::Io`], after which the link is unusable.
    pub async fn receive(&mut self) -> Result<Reply, AgentError> {
        loop {
            if let Some(reply) = self.decoder.next_message()? {
                return Ok(reply);
            }
            let length = self.socket.read(&mut self.buffer).await?;
            if length == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            self.decoder.push(&self.buffer[..length]);
        }
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`AgentError::Failed`] or [`AgentError::NotInTime`] with the
    /// agent's reason.
    pub async fn request(&mut self, request: &Request) -> Result<Reply, AgentError> {
        self.socket.write_all(&encode(request)?).await?;
        match self.receive().await? {
            Reply::Failed { what } => Err(AgentError::Failed(what)),
            Reply::NotInTime { what, after_ms } => Err(AgentError::NotInTime { what, after_ms }),
            reply => Ok(reply),
        }
    }
}

/// The name of a reply, for errors.
#[must_use]
pub fn reply_name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Hello(_) => "a greeting",
        Reply::Environment(_) => "its environment",
        Reply::Report(_) => "a report",
        Reply::Log(_) => "a piece of the log",
        Reply::DmaCounts(_) => "DMA counts",
        Reply::GroupType { .. } => "a group's type",
        Reply::Files(_) => "names of files",
        Reply::Piece(_) => "a piece of a file",
        Reply::Bye => "a farewell",
        Reply::NotInTime { .. } => "that the kernel is late",
        Reply::Failed { .. } => "a failure",
    }
}

/// Extracts the value of one kind of reply and makes any other an error.
macro_rules! expect_reply {
    ($reply:expr, $pattern:pat => $value:expr, $expected:literal) => {
        match $reply {
            $pattern => Ok($value),
            other => Err($crate::agent::AgentError::Unexpected {
                expected: $expected,
                found: $crate::agent::reply_name(&other),
            }),
        }
    };
}

pub(crate) use expect_reply;
