//! What the fuzz targets do, on a few inputs: so that they are known to run, and to find.

#[path = "../../fuzz/bodies/commands.rs"]
pub(crate) mod commands;
#[path = "../../fuzz/bodies/messages.rs"]
pub(crate) mod messages;
#[path = "../../fuzz/bodies/shadow.rs"]
pub(crate) mod shadow;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn survives_arbitrary_commands_and_registers(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        commands::check(&bytes);
    }

    #[test]
    fn survives_arbitrary_messages(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        messages::check(&bytes);
    }
}
