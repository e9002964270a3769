//! The control channel: messages over a UART.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{Context, Result, bail};
use dmarig_wire::{Decoder, Reply, Request};
use rustix::termios::{
    ControlModes, OptionalActions, SpecialCodeIndex, tcdrain, tcgetattr, tcsetattr,
};

/// The agent's end of the control channel.
#[derive(Debug)]
pub(crate) struct Link {
    tty: File,
    decoder: Decoder,
}

impl Link {
    /// Opens a UART and makes it a plain pipe for bytes.
    ///
    /// # Errors
    /// Where it isn't there or is no terminal.
    pub(crate) fn open(path: &str) -> Result<Self> {
        let tty = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(path)
            .with_context(|| format!("can't open the control channel {path}"))?;
        let mut modes = tcgetattr(&tty).with_context(|| format!("{path} is no terminal"))?;
        modes.make_raw();
        modes.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
        modes.control_modes -= ControlModes::CRTSCTS;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        modes.set_speed(115_200)?;
        tcsetattr(&tty, OptionalActions::Now, &modes)
            .with_context(|| format!("can't set {path} up"))?;
        Ok(Self { tty, decoder: Decoder::default() })
    }

    /// Sends one reply; one that is over the wire's limits becomes [`Reply::Failed`].
    ///
    /// # Errors
    /// Where the UART does not take it.
    pub(crate) fn send(&mut self, reply: &Reply) -> Result<()> {
        let frame = dmarig_wire::encode(reply).or_else(|error| {
            dmarig_wire::encode(&Reply::Failed { what: format!("can't send the reply: {error}") })
        })?;
        self.tty.write_all(&frame).context("can't write to the control channel")
    }

    /// Sends the last reply and waits until it has left: a guest that powers off takes what is in
    /// the UART's buffer with it.
    ///
    /// # Errors
    /// Where the UART does not take it.
    pub(crate) fn send_last(&mut self, reply: &Reply) -> Result<()> {
        self.send(reply)?;
        tcdrain(&self.tty).context("can't empty the control channel")
    }

    /// Waits for the next request. After an error decoding starts anew, so that the agent can report it
    /// and the rig can send another request.
    ///
    /// # Errors
    /// Where the bytes are not a request.
    pub(crate) fn receive(&mut self) -> Result<Request> {
        let mut bytes = [0; 4096];
        loop {
            match self.decoder.next_message() {
                Ok(Some(request)) => return Ok(request),
                Ok(None) => {}
                Err(error) => {
                    self.decoder = Decoder::default();
                    bail!("can't understand the request: {error}");
                }
            }
            let count = self.tty.read(&mut bytes).context("can't read the control channel")?;
            if count == 0 {
                bail!("the control channel was hung up");
            }
            self.decoder.push(&bytes[..count]);
        }
    }
}
