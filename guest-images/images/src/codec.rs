//! Compression formats by their magic numbers, each behind one bounded reader.

use std::io::{self, Read};

/// Memory that a stream's own header may ask for. The kernel's build uses zstd with 128 MiB.
const MAX_WINDOW: u64 = 256 << 20;
const MAX_WINDOW_KIB: u32 = (MAX_WINDOW >> 10) as u32;

/// A compression format that kernels, modules or packages use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lz4,
    Lzo,
    Zstd,
}

impl Codec {
    /// Recognises a stream by its first bytes.
    pub(crate) fn detect(head: &[u8]) -> Option<Codec> {
        const MAGIC: [(&[u8], Codec); 7] = [
            (b"\x1f\x8b", Codec::Gzip),
            (b"BZh", Codec::Bzip2),
            (b"\x5d\x00\x00", Codec::Lzma),
            (b"\xfd7zXZ\x00", Codec::Xz),
            (b"\x02\x21\x4c\x18", Codec::Lz4),
            (b"\x89LZO", Codec::Lzo),
            (b"\x28\xb5\x2f\xfd", Codec::Zstd),
        ];
        MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, codec)| *codec)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Bzip2 => "bzip2",
            Codec::Lzma => "lzma",
            Codec::Xz => "xz",
            Codec::Lz4 => "lz4",
            Codec::Lzo => "lzo",
            Codec::Zstd => "zstd",
        }
    }

    /// A reader of the first stream in `source`; what comes behind it isn't looked at.
    pub(crate) fn reader<'a>(self, source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Codec::Gzip => Box::new(flate2::read::GzDecoder::new(source)),
            Codec::Bzip2 => Box::new(bzip2::read::BzDecoder::new(source)),
            Codec::Lzma => {
                Box::new(lzma_rust2::LzmaReader::new_mem_limit(source, MAX_WINDOW_KIB, None)?)
            }
            Codec::Xz => {
                Box::new(lzma_rust2::XzReader::new_mem_limit(source, false, MAX_WINDOW_KIB))
            }
            Codec::Zstd => {
                use ruzstd::decoding::StreamingDecoder;
                let decoder = StreamingDecoder::new_with_max_window_size(source, MAX_WINDOW);
                Box::new(decoder.map_err(io::Error::other)?)
            }
            Codec::Lz4 => Box::new(Lz4Legacy::new(source)?),
            Codec::Lzo => return Err(io::Error::new(io::ErrorKind::Unsupported, "lzo")),
        })
    }

    /// Unpacks `data`, to at most `limit` bytes.
    pub(crate) fn unpack(self, data: &[u8], expected: usize, limit: u64) -> io::Result<Vec<u8>> {
        let mut unpacked = Vec::with_capacity(expected.min(limit as usize));
        self.reader(data)?.take(limit + 1).read_to_end(&mut unpacked)?;
        if unpacked.len() as u64 > limit {
            return Err(io::Error::other(format!("more than {limit} bytes come out of it")));
        }
        Ok(unpacked)
    }
}

/// What `data` unpacks to where it is compressed in a format that is known here, else `data` itself; at
/// most `limit` bytes.
///
/// # Errors
/// What is wrong with the stream, or that more comes out of it.
pub fn unpacked(data: Vec<u8>, limit: u64) -> io::Result<Vec<u8>> {
    match Codec::detect(&data) {
        Some(codec) => codec.unpack(&data, data.len(), limit).map_err(|error| {
            io::Error::new(error.kind(), format!("can't unpack it as {}: {error}", codec.name()))
        }),
        None => Ok(data),
    }
}

/// The frame that `lz4 -l` writes: a magic number, then blocks of a size and that many bytes. It
/// has no end mark; in a kernel the four bytes of the unpacked size follow the last block, so a
/// remainder that holds no whole block is the end.
struct Lz4Legacy<R> {
    source: R,
    block: Vec<u8>,
    at: usize,
}

impl<R: Read> Lz4Legacy<R> {
    /// What a block unpacks to at most, by the format.
    const BLOCK: usize = 8 << 20;

    fn new(mut source: R) -> io::Result<Self> {
        source.read_exact(&mut [0; 4])?;
        Ok(Lz4Legacy { source, block: Vec::new(), at: 0 })
    }

    /// Unpacks the next block; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut size = Vec::with_capacity(4);
        self.source.by_ref().take(4).read_to_end(&mut size)?;
        let Ok(size) = <[u8; 4]>::try_from(size) else { return Ok(false) };
        let size = u64::from(u32::from_le_bytes(size));
        let mut packed = Vec::new();
        self.source.by_ref().take(size).read_to_end(&mut packed)?;
        if packed.is_empty() {
            return Ok(false);
        }
        if (packed.len() as u64) < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.block = lz4_flex::block::decompress(&packed, Self::BLOCK).map_err(io::Error::other)?;
        self.at = 0;
        Ok(true)
    }
}

impl<R: Read> Read for Lz4Legacy<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.fill()? {
                return Ok(0);
            }
        }
        let n = (&self.block[self.at..]).read(buffer)?;
        self.at += n;
        Ok(n)
    }
}
