//! One file per noun. Each turns arguments into requests and answers into a report.

pub(crate) mod appliance;
pub(crate) mod attest;
pub(crate) mod audit;
pub(crate) mod key;
pub(crate) mod keyring;
mod policy;
pub(crate) mod proposal;
pub(crate) mod random;
pub(crate) mod release;
pub(crate) mod seal;
pub(crate) mod secret;
pub(crate) mod shell;
pub(crate) mod store;
pub(crate) mod token;
pub(crate) mod user;

use kms_client::ClientError;

use crate::failure::Failure;

/// Fetches pages until the last, up to [`PAGES_MAX`].
async fn all_pages<T>(
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String), ClientError>,
) -> Result<Vec<T>, Failure> {
    let (mut items, mut token) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let (mut more, next) = page(token).await?;
        items.append(&mut more);
        if next.is_empty() {
            return Ok(items);
        }
        token = next;
    }
    Err(Failure::Answer("a list without an end"))
}

/// The part of an answer that the contract always sets.
fn required<T>(part: Option<T>) -> Result<T, Failure> {
    part.ok_or(Failure::Answer("a required part is missing"))
}

/// Most pages of 500 that are fetched for one list.
const PAGES_MAX: usize = 2000;
const PAGE_SIZE: i32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_are_joined_and_an_endless_list_ends() {
        let pages = async |token: String| {
            let n = token.len();
            Ok((vec![n], if n < 2 { format!("{token}x") } else { String::new() }))
        };
        assert_eq!(all_pages(pages).await.unwrap(), [0, 1, 2]);
        let endless = async |_| Ok((Vec::<u8>::new(), "again".to_owned()));
        assert!(matches!(all_pages(endless).await, Err(Failure::Answer(_))));
    }
}
