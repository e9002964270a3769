//! The shadow against a model that is too simple to be wrong.

use proptest::prelude::*;

use crate::fuzz_bodies::shadow;

proptest! {
    #[test]
    fn behaves_like_a_table_of_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        shadow::check(&bytes);
    }
}

#[test]
fn maps_both_ends_of_the_address_space() {
    use dmarig_probe::shadow::{Access, FileId, MapError, Shadow};
    let file = FileId::new(0).unwrap();
    let all = Access { read: true, write: true };
    let mut shadow = Shadow::default();
    shadow.map(u64::MAX - 4095, 4096, (file, 0), all, 0).unwrap();
    shadow.map(0, 4096, (file, 0), all, 0).unwrap();
    let mut pieces = Vec::new();
    shadow.resolve(u64::MAX, 1, Access::READ, &mut pieces).unwrap();
    assert_eq!((pieces[0].offset, pieces[0].size), (4095, 1));
    assert!(shadow.resolve(u64::MAX, 2, Access::READ, &mut pieces).is_err());
    let range = MapError::Range { iova: u64::MAX, size: 2 };
    assert_eq!(shadow.unmap(u64::MAX, 2, |_| ()), Err(range));
    assert_eq!(shadow.unmap(4096, u64::MAX - 4095, |_| ()), Ok(1));
    assert_eq!(shadow.clear(|_| ()), 1);
}
