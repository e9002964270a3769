//! The shadow beside a table that has an entry for each unit of a small address space.

use dmarig_probe::shadow::{Access, FileId, MapError, MapId, Piece, Refusal, Shadow};

/// Addresses that are used.
const SPACE: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unit {
    /// Where its mapping begins and ends.
    first: usize,
    last: usize,
    file: u8,
    offset: u64,
    access: Access,
    id: MapId,
}

/// Does what the bytes say, four at a time, to both, and compares.
pub(crate) fn check(bytes: &[u8]) {
    let mut shadow = Shadow::default();
    let mut table = [None::<Unit>; SPACE];
    for step in bytes.chunks_exact(4) {
        let (iova, size) = (usize::from(step[1]) % SPACE, usize::from(step[2]) % 12);
        let size = size.min(SPACE - iova);
        let access = Access { read: step[3] & 1 != 0, write: step[3] & 2 != 0 };
        match step[0] % 4 {
            0 | 1 => map(&mut shadow, &mut table, iova, size, step[3] >> 2, access),
            2 => unmap(&mut shadow, &mut table, iova, size),
            _ => resolve(&shadow, &table, iova, size, access),
        }
        let live = table
            .iter()
            .enumerate()
            .filter(|(at, unit)| unit.is_some_and(|unit| unit.first == *at));
        assert_eq!(shadow.len(), live.count());
        assert_eq!(shadow.bytes(), table.iter().flatten().count() as u64);
    }
    for mapping in shadow.iter() {
        let unit = table[mapping.iova as usize].unwrap();
        assert_eq!(
            (unit.first as u64, unit.last as u64, unit.id),
            (mapping.iova, mapping.last(), mapping.id)
        );
        assert!(shadow.lives(mapping.iova, mapping.id));
    }
    let count = shadow.len() as u64;
    assert_eq!(shadow.clear(|_| ()), count);
    assert!(shadow.is_empty() && shadow.bytes() == 0);
}

fn map(
    shadow: &mut Shadow,
    table: &mut [Option<Unit>; SPACE],
    iova: usize,
    size: usize,
    file: u8,
    access: Access,
) {
    let offset = u64::from(file) * 1000;
    let id = FileId::new(usize::from(file)).unwrap();
    let before = shadow.newest();
    let made = shadow.map(iova as u64, size as u64, (id, offset), access, 5);
    let range = &mut table[iova..iova + size];
    if size == 0 {
        assert!(matches!(made, Err(MapError::Range { .. })));
    } else if range.iter().any(Option::is_some) {
        assert!(matches!(made, Err(MapError::Overlap { .. })));
    } else {
        let id = made.unwrap();
        assert!(id > before);
        let last = iova + size - 1;
        range.fill(Some(Unit { first: iova, last, file, offset, access, id }));
    }
}

fn unmap(shadow: &mut Shadow, table: &mut [Option<Unit>; SPACE], iova: usize, size: usize) {
    let mut gone = Vec::new();
    let result = shadow.unmap(iova as u64, size as u64, |mapping| gone.push(mapping.id));
    let range = &table[iova..iova + size];
    let cut = range.iter().flatten().any(|unit| unit.first < iova || unit.last >= iova + size);
    if size == 0 {
        assert!(matches!(result, Err(MapError::Range { .. })));
    } else if cut {
        assert!(matches!(result, Err(MapError::Split { .. })));
    } else {
        let mut ids: Vec<_> = range.iter().flatten().map(|unit| unit.id).collect();
        ids.dedup();
        assert_eq!((result, &gone), (Ok(ids.len() as u64), &ids));
        table[iova..iova + size].fill(None);
        return;
    }
    assert!(gone.is_empty());
}

fn resolve(
    shadow: &Shadow,
    table: &[Option<Unit>; SPACE],
    iova: usize,
    size: usize,
    access: Access,
) {
    let mut pieces: Vec<Piece> = Vec::new();
    let result = shadow.resolve(iova as u64, size as u64, access, &mut pieces);
    let fits =
        |unit: &Unit| (unit.access.read || !access.read) && (unit.access.write || !access.write);
    let wrong = (iova..iova + size).find(|at| !table[*at].as_ref().is_some_and(fits));
    match (result, wrong) {
        (Err(_), _) if size == 0 => {}
        (Err(Refusal::Unmapped(at)), Some(wrong)) => {
            assert!(at as usize == wrong && table[wrong].is_none());
        }
        (Err(Refusal::Denied(at)), Some(wrong)) => {
            assert!(at as usize == wrong && table[wrong].is_some());
        }
        (Ok(()), None) => {
            let mut at = iova;
            for piece in pieces {
                let unit = table[at].unwrap();
                assert_eq!(piece.id, unit.id);
                assert_eq!(piece.file.index(), Some(usize::from(unit.file)));
                assert_eq!(piece.offset, unit.offset + (at - unit.first) as u64);
                at += piece.size as usize;
            }
            assert_eq!(at, iova + size);
        }
        (result, wrong) => panic!("{result:?}, but {wrong:?} is wrong"),
    }
}
