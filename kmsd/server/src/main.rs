//! `kmsd`: see `kmsd --help`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

// A request makes some hundred small objects on one thread and drops them on another, which the system's
// allocator is slow at: a signature over gRPC takes a quarter less CPU time with this one. Its hardened form
// (`secure`) costs nothing measurable beside that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    kmsd::cli::run()
}
