//! MSI-X vectors: each may be bound to an eventfd of the client, and held back.

use std::{
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use rustix::io::Errno;

use crate::protocol::{IrqAction, IrqData, SetIrqs};

/// Index of MSI-X (`VFIO_PCI_MSIX_IRQ_INDEX`).
pub const MSIX_INDEX: u32 = 2;
/// Index of error interrupts (`VFIO_PCI_ERR_IRQ_INDEX`). There never are any, but QEMU warns of a
/// device without them.
pub const ERROR_INDEX: u32 = 3;
/// Number of indices: INTx, MSI, MSI-X, error, request.
pub const INDICES: u32 = 5;

/// All vectors.
#[derive(Debug)]
pub struct Interrupts(Mutex<Vec<Vector>>);

#[derive(Debug, Default)]
struct Vector {
    eventfd: Option<OwnedFd>,
    masked: bool,
    pending: bool,
}

impl Interrupts {
    /// Creates vectors, none of them bound.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        Self(Mutex::new((0..vectors).map(|_| Vector::default()).collect()))
    }

    /// Number of interrupts of an index.
    #[must_use]
    pub fn count(&self, index: u32) -> u32 {
        match index {
            MSIX_INDEX => self.with_vectors(|vectors| vectors.len() as u32),
            ERROR_INDEX => 1,
            _ => 0,
        }
    }

    /// Raises a vector.
    pub fn raise(&self, vector: u16) {
        self.with_vectors(|vectors| {
            if let Some(vector) = vectors.get_mut(usize::from(vector)) {
                vector.raise();
            }
        });
    }

    /// The pending bits of all vectors.
    #[must_use]
    pub fn pending(&self) -> Vec<u8> {
        self.with_vectors(|vectors| {
            let mut bits = vec![0; vectors.len().div_ceil(8)];
            for (at, vector) in vectors.iter().enumerate() {
                bits[at / 8] |= u8::from(vector.pending) << (at % 8);
            }
            bits
        })
    }

    /// Unbinds and resets all vectors.
    pub fn reset(&self) {
        self.with_vectors(|vectors| {
            vectors.iter_mut().for_each(|vector| *vector = Vector::default())
        });
    }

    /// Carries out a request of the client.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn set(&self, set: &SetIrqs<'_>, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        self.with_vectors(|vectors| {
            // If an index has no vectors, none can be bound, but to unbind all is no error.
            let mut error = [Vector::default()];
            let all = match set.index {
                MSIX_INDEX => &mut vectors[..],
                ERROR_INDEX => &mut error,
                index if index < INDICES => &mut [],
                _ => return Err(Errno::INVAL),
            };
            if set.data == IrqData::None && set.count == 0 {
                if set.action == IrqAction::Trigger && set.start == 0 {
                    all.iter_mut().for_each(|vector| *vector = Vector::default());
                    return Ok(());
                }
                return Err(Errno::INVAL);
            }
            let end = u64::from(set.start) + u64::from(set.count);
            if end > all.len() as u64 {
                return Err(Errno::INVAL);
            }
            let range = &mut all[set.start as usize..end as usize];
            match set.data {
                IrqData::None => range.iter_mut().for_each(|vector| vector.apply(set.action)),
                IrqData::Bool(which) => range
                    .iter_mut()
                    .zip(which)
                    .filter(|(_, which)| **which != 0)
                    .for_each(|(vector, _)| vector.apply(set.action)),
                IrqData::EventFd => return bind(range, set.action, fds),
            }
            Ok(())
        })
    }

    fn with_vectors<T>(&self, change: impl FnOnce(&mut Vec<Vector>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Binds each vector of a range to its descriptor, or unbinds all if there are none.
fn bind(range: &mut [Vector], action: IrqAction, fds: Vec<OwnedFd>) -> Result<(), Errno> {
    // Masking by eventfd is for level-triggered interrupts, of which there are none.
    if action != IrqAction::Trigger || (!fds.is_empty() && fds.len() != range.len()) {
        return Err(Errno::INVAL);
    }
    range.iter_mut().for_each(|vector| vector.eventfd = None);
    for (vector, fd) in range.iter_mut().zip(fds) {
        vector.eventfd = Some(fd);
        if std::mem::take(&mut vector.pending) {
            vector.raise();
        }
    }
    Ok(())
}

impl Vector {
    fn apply(&mut self, action: IrqAction) {
        match action {
            IrqAction::Mask => self.masked = true,
            IrqAction::Unmask => {
                self.masked = false;
                if std::mem::take(&mut self.pending) {
                    self.raise();
                }
            }
            IrqAction::Trigger => self.raise(),
        }
    }

    fn raise(&mut self) {
        if self.masked {
            self.pending = true;
            return;
        }
        if let Some(eventfd) = &self.eventfd {
            // A full counter has been raised already, and a descriptor that can't be written is the
            // client's problem.
            let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
        }
    }
}
