//! The convention for functions that return bytes of variable length (PKCS#11 v3.1 §5.2).
//!
//! A call without a buffer asks for the length; a buffer that is too small is told the length; in
//! neither case does the operation end. Every other outcome of a last step ends it.

use cryptoki_sys::*;

use crate::rv::{Result, Rv};

/// The caller's output buffer, as far as the safe code needs to know it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Room {
    /// No buffer: the length is asked for.
    Query,
    /// A buffer of so many bytes.
    Bytes(usize),
}

/// What to tell the caller.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Output {
    /// The result; it fits into the room.
    Bytes(Vec<u8>),
    /// The result will have this length.
    Length(usize),
    /// The buffer must have this length.
    TooSmall(usize),
}

impl Room {
    /// Gives `length` bytes of `produce`, or tells the length and leaves `produce` alone.
    pub(crate) fn give(
        self,
        length: usize,
        produce: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Output> {
        match self {
            Self::Query => Ok(Output::Length(length)),
            Self::Bytes(room) if room < length => Ok(Output::TooSmall(length)),
            Self::Bytes(_) => {
                let bytes = produce()?;
                if bytes.len() == length {
                    Ok(Output::Bytes(bytes))
                } else {
                    Err(Rv(CKR_DEVICE_ERROR))
                }
            }
        }
    }
}

/// Takes the last step of a running operation; only telling a length leaves it running.
pub(crate) fn last_step<T>(
    running: &mut Option<T>,
    step: impl FnOnce(&mut T) -> Result<Output>,
) -> Result<Output> {
    let operation = running.as_mut().ok_or(Rv(CKR_OPERATION_NOT_INITIALIZED))?;
    let outcome = step(operation);
    if !matches!(outcome, Ok(Output::Length(_) | Output::TooSmall(_))) {
        *running = None;
    }
    outcome
}

/// Takes a step that is not the last; an error ends the operation.
pub(crate) fn next_step<T, R>(
    running: &mut Option<T>,
    step: impl FnOnce(&mut T) -> Result<R>,
) -> Result<R> {
    let operation = running.as_mut().ok_or(Rv(CKR_OPERATION_NOT_INITIALIZED))?;
    let outcome = step(operation);
    if outcome.is_err() {
        *running = None;
    }
    outcome
}

/// Starts an operation, or ends the running one when there is no mechanism (PKCS#11 v3.1 §5.1).
pub(crate) fn begin<M, T>(
    running: &mut Option<T>,
    mechanism: Option<M>,
    start: impl FnOnce(M) -> Result<T>,
) -> Result<()> {
    match (mechanism, running.is_some()) {
        (None, true) => *running = None,
        (None, false) => return Err(Rv(CKR_ARGUMENTS_BAD)),
        (Some(_), true) => return Err(Rv(CKR_OPERATION_ACTIVE)),
        (Some(mechanism), false) => *running = Some(start(mechanism)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telling_a_length_keeps_the_operation_and_everything_else_ends_it() {
        for (room, runs_on) in
            [(Room::Query, true), (Room::Bytes(2), true), (Room::Bytes(3), false)]
        {
            let mut running = Some(());
            let outcome = last_step(&mut running, |()| room.give(3, || Ok(vec![1, 2, 3])));
            assert!(outcome.is_ok());
            assert_eq!(running.is_some(), runs_on, "{room:?}");
        }
        let mut running = Some(());
        let refused = last_step(&mut running, |()| Err(Rv(CKR_ARGUMENTS_BAD)));
        assert_eq!((refused, running), (Err(Rv(CKR_ARGUMENTS_BAD)), None));
    }

    #[test]
    fn a_result_of_another_length_than_announced_is_not_given_out() {
        let outcome = Room::Bytes(100).give(3, || Ok(vec![0; 4]));
        assert_eq!(outcome, Err(Rv(CKR_DEVICE_ERROR)));
    }

    #[test]
    fn no_mechanism_ends_what_runs_and_is_a_mistake_otherwise() {
        let mut running = Some(1);
        assert_eq!(begin(&mut running, Some(2), Ok), Err(Rv(CKR_OPERATION_ACTIVE)));
        assert_eq!(begin(&mut running, None::<u8>, |_| Ok(2)), Ok(()));
        assert_eq!(running, None);
        assert_eq!(begin(&mut running, None::<u8>, |_| Ok(2)), Err(Rv(CKR_ARGUMENTS_BAD)));
    }
}
