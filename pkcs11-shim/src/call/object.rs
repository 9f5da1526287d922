//! Objects: `C_FindObjectsInit` to `C_DestroyObject`.

use std::collections::VecDeque;

use cryptoki_sys::*;
use kms_proto::v1;

use crate::attribute::{self, Answer, Question, class_number};
use crate::call::key_management::new_name;
use crate::connection;
use crate::mechanism::OPERATIONS;
use crate::module::{self, Module};
use crate::object::{Class, Object};
use crate::output::next_step;
use crate::rv::{HOSTILE, Result, Rv};
use crate::session::Session;
use crate::template::{self, Attribute};

/// A running search: what it has found and not yet given out.
pub(crate) struct Find(VecDeque<CK_OBJECT_HANDLE>);

/// `C_FindObjectsInit`. The daemon searches by label and ID, the rest is sorted out here.
pub(crate) fn find_init(handle: CK_SESSION_HANDLE, template: Result<Vec<Attribute>>) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    let mut operations = session.operations();
    if operations.find.is_some() {
        return Err(Rv(CKR_OPERATION_ACTIVE));
    }
    operations.find = Some(Find(find(&module, &session, &template?)?));
    Ok(())
}

/// `C_FindObjects`.
pub(crate) fn find_next(
    handle: CK_SESSION_HANDLE,
    room: Result<usize>,
) -> Result<Vec<CK_OBJECT_HANDLE>> {
    let session = module::current()?.sessions.find(handle)?;
    next_step(&mut session.operations().find, |Find(found)| {
        let count = room?.min(found.len());
        Ok(found.drain(..count).collect())
    })
}

/// `C_FindObjectsFinal`.
pub(crate) fn find_final(handle: CK_SESSION_HANDLE) -> Result<()> {
    let session = module::current()?.sessions.find(handle)?;
    let running = session.operations().find.take();
    running.map(drop).ok_or(Rv(CKR_OPERATION_NOT_INITIALIZED))
}

/// `C_GetAttributeValue`.
pub(crate) fn attribute_values(
    handle: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    questions: &[Question],
) -> Result<(CK_RV, Vec<Answer>)> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    Ok(attribute::answers(&*module.object(&session, object)?, questions))
}

/// `C_SetAttributeValue`: CKA_LABEL and CKA_ID. They belong to the key, so both halves of a pair
/// change, and other versions with it.
pub(crate) fn set_attribute_values(
    handle: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: &[Attribute],
) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    let object = writable(&module, &session, object)?;
    let (mut label, mut id) = (None, None);
    for attribute in template {
        match attribute.kind {
            CKA_LABEL => label = Some(attribute.text()?),
            CKA_ID => id = Some(attribute.value.clone()),
            kind if attribute::value(&object, kind) == attribute::Value::Absent => {
                return Err(Rv(CKR_ATTRIBUTE_TYPE_INVALID));
            }
            _ => return Err(Rv(CKR_ATTRIBUTE_READ_ONLY)),
        }
    }
    if label.is_none() && id.is_none() {
        return Ok(());
    }
    let version = object.version.clone();
    let request_id = connection::request_id()?;
    let request = v1::UpdateObjectRequest { version, label, id, request_id };
    let answer = connection::call!(&module, Some(session.slot), UpdateObject(request))?;
    let updated = answer.object.ok_or(HOSTILE)?;
    if updated.version != object.version {
        return Err(HOSTILE);
    }
    for object in Object::of_version(session.slot, updated)? {
        module.objects.put(object);
    }
    Ok(())
}

/// `C_CopyObject`, of a private or secret key: another name for the same material, with a label and an
/// ID of its own, and as tight or tighter. A public key comes with its copy.
pub(crate) fn copy(
    handle: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: &[Attribute],
) -> Result<CK_OBJECT_HANDLE> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    let original = writable(&module, &session, object)?;
    if !original.is_private() {
        return Err(Rv(CKR_ACTION_PROHIBITED));
    }
    let ring = module.tokens.token(session.slot)?.ring;
    let key = copied_key(&original, template, &ring)?;
    let exportable = key.exportable;
    let request = v1::CopyKeyRequest {
        name: original.version.clone(),
        key: Some(key),
        request_id: connection::request_id()?,
    };
    let answer = connection::call!(&module, Some(session.slot), CopyKey(request))?;
    let made = Object::of_new_key(session.slot, answer.key, answer.version)?;
    // What was to be tighter and is not would be a promise broken in silence.
    if made.iter().any(|copy| copy.algorithm != original.algorithm || copy.exportable != exportable)
    {
        return Err(HOSTILE);
    }
    let put = |copy: Object| (copy.class, module.objects.put(copy));
    let handles: Vec<_> = made.into_iter().map(put).collect();
    let found = handles.iter().find(|(class, _)| *class == original.class);
    found.map(|(_, handle)| *handle).ok_or(HOSTILE)
}

/// The copy that a template asks for.
fn copied_key(original: &Object, template: &[Attribute], ring: &str) -> Result<v1::Key> {
    let mut key = v1::Key {
        name: format!("{ring}/keys/{}", new_name()?),
        exportable: original.exportable,
        ..Default::default()
    };
    let mut usages = original.usages.clone();
    for attribute in template {
        let inconsistent = Err(Rv(CKR_TEMPLATE_INCONSISTENT));
        let operation = OPERATIONS
            .iter()
            .find(|one| one.class == original.class && one.attribute == attribute.kind);
        match (attribute.kind, operation) {
            (CKA_LABEL, _) => key.pkcs11_label = attribute.text()?,
            (CKA_ID, _) => key.pkcs11_id = attribute.value.clone(),
            (CKA_EXTRACTABLE, _) => {
                if attribute.boolean()? && !original.exportable {
                    return inconsistent;
                }
                key.exportable = attribute.boolean()?;
            }
            (_, Some(operation)) => {
                let wanted = attribute.boolean()?;
                if wanted && !original.is_for(operation.usage) {
                    return inconsistent;
                }
                usages.retain(|usage| wanted || *usage != operation.usage);
            }
            // Session objects would have to die with the session, which the daemon does not do.
            (kind, None) => match attribute::value(original, kind) {
                attribute::Value::Bytes(same) if same == attribute.value => {}
                attribute::Value::Bytes(_) => return inconsistent,
                _ => return Err(Rv(CKR_ATTRIBUTE_TYPE_INVALID)),
            },
        }
    }
    if !key.exportable {
        usages.retain(|usage| *usage != v1::Usage::Export);
    }
    if usages.is_empty() {
        return Err(Rv(CKR_TEMPLATE_INCONSISTENT));
    }
    // What is not set is as it is in the original.
    if usages != original.usages {
        key.usages = usages.into_iter().map(i32::from).collect();
    }
    Ok(key)
}

/// `C_GetObjectSize`: what it takes in the daemon's store is not for us to know.
pub(crate) fn size(handle: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> Result<CK_ULONG> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    module.object(&session, object)?;
    Ok(CK_UNAVAILABLE_INFORMATION)
}

/// `C_DestroyObject`, of a private or secret key. A public key goes when its private key does:
/// destroying it alone would have to destroy that, which nobody means who deletes a public key.
pub(crate) fn destroy(handle: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> Result<()> {
    let module = module::current()?;
    let session = module.sessions.find(handle)?;
    let object = writable(&module, &session, object)?;
    if !object.is_private() {
        return Err(Rv(CKR_ACTION_PROHIBITED));
    }
    let request = v1::DestroyObjectRequest {
        version: object.version.clone(),
        request_id: connection::request_id()?,
    };
    connection::call!(&module, Some(session.slot), DestroyObject(request))?;
    module.objects.forget(session.slot, &object.version);
    Ok(())
}

/// Whether this session may change something on its token.
pub(crate) fn require_writing(module: &Module, session: &Session) -> Result<()> {
    if !session.read_write {
        return Err(Rv(CKR_SESSION_READ_ONLY));
    }
    if !module.tokens.is_user(session.slot) {
        return Err(Rv(CKR_USER_NOT_LOGGED_IN));
    }
    Ok(())
}

fn writable(
    module: &Module,
    session: &Session,
    handle: CK_OBJECT_HANDLE,
) -> Result<std::sync::Arc<Object>> {
    let object = module.object(session, handle)?;
    require_writing(module, session)?;
    Ok(object)
}

fn find(
    module: &Module,
    session: &Session,
    template: &[Attribute],
) -> Result<VecDeque<CK_OBJECT_HANDLE>> {
    let mut found = VecDeque::new();
    let logged_in = module.tokens.is_user(session.slot);
    if !can_match(template, logged_in) {
        return Ok(found);
    }
    let id = template::value(template, CKA_ID).map(|id| id.value.clone());
    for label in labels(template) {
        let versions = match search(module, session, label, id.clone()) {
            // Who is not logged in sees nothing where the daemon shows nothing.
            Err(Rv(CKR_USER_NOT_LOGGED_IN)) if !logged_in => Vec::new(),
            versions => versions?,
        };
        for version in versions {
            for object in Object::of_version(session.slot, version)? {
                let visible = logged_in || !object.is_private();
                if visible && attribute::matches(&object, template) {
                    found.push_back(module.objects.put(object));
                }
            }
        }
    }
    Ok(found)
}

/// Whether anything of ours can match, so that the daemon need not be asked. Programs look for
/// data objects, too.
fn can_match(template: &[Attribute], logged_in: bool) -> bool {
    let is_one_of = |kind, values: &[Vec<u8>]| {
        template::value(template, kind).is_none_or(|attribute| values.contains(&attribute.value))
    };
    let classes: &[_] = if logged_in {
        &[Class::Certificate, Class::Private, Class::Public, Class::Secret]
    } else {
        &[Class::Certificate, Class::Public]
    };
    let classes: Vec<_> =
        classes.iter().map(|class| class_number(*class).to_ne_bytes().to_vec()).collect();
    is_one_of(CKA_CLASS, &classes) && is_one_of(CKA_TOKEN, &[vec![CK_TRUE]])
}

/// The labels to ask the daemon for. It knows the label of a key, while we show those of older
/// versions with their number; so `web@2` may be version 2 of `web`, or a key of just that label.
fn labels(template: &[Attribute]) -> Vec<Option<String>> {
    let Some(wanted) = template::value(template, CKA_LABEL) else { return vec![None] };
    // What is not UTF-8 is no label.
    let Ok(label) = wanted.text() else { return Vec::new() };
    let base = label
        .rsplit_once('@')
        .filter(|(base, number)| !base.is_empty() && number.parse::<u32>().is_ok());
    let base = base.map(|(base, _)| base.to_owned());
    base.into_iter().chain([label]).map(Some).collect()
}

fn search(
    module: &Module,
    session: &Session,
    label: Option<String>,
    id: Option<Vec<u8>>,
) -> Result<Vec<v1::TokenObject>> {
    let mut request = v1::FindObjectsRequest {
        ring: module.tokens.token(session.slot)?.ring,
        label,
        id,
        ..Default::default()
    };
    let mut found = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = connection::call!(module, Some(session.slot), FindObjects(request.clone()))?;
        if page.objects.len() > PAGE_MAX {
            return Err(HOSTILE);
        }
        found.extend(page.objects);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
    Err(Rv(CKR_HOST_MEMORY))
}

/// The daemon's largest page, and how many are read.
const PAGE_MAX: usize = 1000;
const PAGES_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::tests::aes_version;

    fn attribute(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Attribute {
        Attribute { kind, value: value.to_vec() }
    }

    #[test]
    fn a_label_with_a_number_is_looked_for_both_ways() {
        let labels = |label: &[u8]| labels(&[attribute(CKA_LABEL, label)]);
        assert_eq!(labels(b"web"), [Some("web".to_owned())]);
        assert_eq!(labels(b"web@2"), [Some("web".to_owned()), Some("web@2".to_owned())]);
        assert_eq!(labels(b"a@b"), [Some("a@b".to_owned())]);
        assert_eq!(labels(b"@2"), [Some("@2".to_owned())]);
        assert!(labels(b"\xff").is_empty());
        assert_eq!(super::labels(&[]), [None]);
    }

    #[test]
    fn a_copy_is_as_tight_as_its_original_or_tighter() {
        let original = Object::of_version(0, aes_version()).unwrap().remove(0);
        let exportable =
            Object { exportable: true, ..Object::of_version(0, aes_version()).unwrap().remove(0) };
        let key = |template: &[Attribute]| copied_key(&original, template, "r");
        let plain = key(&[]).unwrap();
        assert!(plain.usages.is_empty() && plain.name.starts_with("r/keys/p11-"));
        let named =
            [attribute(CKA_LABEL, b"copy"), attribute(CKA_ID, &[9]), attribute(CKA_TOKEN, &[1])];
        let named = key(&named).unwrap();
        assert_eq!((&*named.pkcs11_label, &named.pkcs11_id[..]), ("copy", &[9][..]));
        let narrow = key(&[attribute(CKA_DECRYPT, &[0])]).unwrap();
        assert_eq!(narrow.usages, [i32::from(v1::Usage::Encrypt)]);
        let tight = copied_key(&exportable, &[attribute(CKA_EXTRACTABLE, &[0])], "r").unwrap();
        assert!(!tight.exportable && copied_key(&exportable, &[], "r").unwrap().exportable);
        for (kind, value) in [
            (CKA_EXTRACTABLE, &[1][..]),
            (CKA_SENSITIVE, &[0]),
            (CKA_TOKEN, &[0]),
            (CKA_SIGN, &[1]),
            (CKA_PRIVATE, &[0]),
        ] {
            let refused = key(&[attribute(kind, value)]).unwrap_err();
            assert_eq!(refused, Rv(CKR_TEMPLATE_INCONSISTENT), "{kind:#x}");
        }
        let nothing = [attribute(CKA_DECRYPT, &[0]), attribute(CKA_ENCRYPT, &[0])];
        assert_eq!(key(&nothing).unwrap_err(), Rv(CKR_TEMPLATE_INCONSISTENT));
        assert_eq!(
            key(&[attribute(CKA_MODULUS, &[0])]).unwrap_err(),
            Rv(CKR_ATTRIBUTE_TYPE_INVALID)
        );
        assert_eq!(key(&[attribute(CKA_SIGN, &[2])]).unwrap_err(), Rv(CKR_ATTRIBUTE_VALUE_INVALID));
    }

    #[test]
    fn the_daemon_is_not_asked_for_what_it_does_not_have() {
        let class = |class: CK_OBJECT_CLASS| [attribute(CKA_CLASS, &class.to_ne_bytes())];
        assert!(!can_match(&class(CKO_DATA), true));
        assert!(can_match(&class(CKO_CERTIFICATE), false));
        assert!(can_match(&class(CKO_PRIVATE_KEY), true));
        assert!(!can_match(&class(CKO_PRIVATE_KEY), false));
        assert!(can_match(&class(CKO_PUBLIC_KEY), false));
        assert!(!can_match(&[attribute(CKA_TOKEN, &[CK_FALSE])], true));
        assert!(can_match(&[], false));
    }
}
