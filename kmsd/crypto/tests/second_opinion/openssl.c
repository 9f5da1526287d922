/*
 * OpenSSL as a second opinion: one process that answers questions of the tests, one behind the other.
 *
 * A question is a number of fields (one byte), then each field behind its length (four big-endian bytes);
 * the first names what is asked. An answer has the same form, behind one byte that is 1 when OpenSSL
 * did it. It does no more than ask OpenSSL: what is right, the tests say. A question in another form, or
 * no memory, ends the process.
 */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS_MAX = 8, FIELD_BYTES_MAX = 1 << 20, TAG_BYTES = 16 };

struct bytes {
    unsigned char *at;
    size_t length;
};

/* Room for one byte more, which is zero, so that a field can be read as text. */
static struct bytes question[FIELDS_MAX], answer[2];
static int answers;

static void take(void *into, size_t length) {
    if (fread(into, 1, length, stdin) != length) exit(0);
}

static struct bytes room(size_t length) {
    struct bytes made = {malloc(length + 1), length};
    if (made.at == NULL) abort();
    made.at[length] = 0;
    return made;
}

static const char *text(int field) { return (const char *)question[field].at; }

/* Makes room for the next field of the answer. */
static struct bytes *say(size_t length) {
    answer[answers] = room(length);
    return &answer[answers++];
}

static int cipher(void) {
    EVP_CIPHER *kind = EVP_CIPHER_fetch(NULL, text(1), NULL);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int encrypts = *text(2) == 'e', done = 0, more = 0, last = 0, ok = 0;
    if (kind == NULL || ctx == NULL) goto end;
    int aead = (EVP_CIPHER_get_flags(kind) & EVP_CIPH_FLAG_AEAD_CIPHER) != 0;
    int pads = strcmp(text(7), "pad") == 0;
    struct bytes key = question[3], iv = question[4], aad = question[5], data = question[6];
    if (EVP_CIPHER_get_key_length(kind) != (int)key.length) goto end;
    if (aead && !encrypts) {
        if (data.length < TAG_BYTES) goto end;
        data.length -= TAG_BYTES;
    }
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    if (EVP_CipherInit_ex(ctx, kind, NULL, key.at, iv.length ? iv.at : NULL, encrypts) != 1) goto end;
    EVP_CIPHER_CTX_set_padding(ctx, pads);
    if (aead && !encrypts &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, data.at + data.length) != 1)
        goto end;
    if (aad.length && EVP_CipherUpdate(ctx, NULL, &more, aad.at, (int)aad.length) != 1) goto end;
    struct bytes *out = say(data.length + 64);
    if ((data.length || !aead) &&
        EVP_CipherUpdate(ctx, out->at, &done, data.at, (int)data.length) != 1)
        goto end;
    if (EVP_CipherFinal_ex(ctx, out->at + done, &last) != 1) goto end;
    done += last;
    if (aead && encrypts) {
        if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, out->at + done) != 1) goto end;
        done += TAG_BYTES;
    }
    out->length = (size_t)done;
    ok = 1;
end:
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(kind);
    return ok;
}

static int mac(void) {
    EVP_MAC *kind = EVP_MAC_fetch(NULL, text(1), NULL);
    EVP_MAC_CTX *ctx = kind ? EVP_MAC_CTX_new(kind) : NULL;
    const char *of = strcmp(text(1), "CMAC") == 0 ? OSSL_MAC_PARAM_CIPHER : OSSL_MAC_PARAM_DIGEST;
    OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(of, (char *)text(2), 0),
                               OSSL_PARAM_construct_end()};
    struct bytes key = question[3], data = question[4], *out = say(EVP_MAX_MD_SIZE);
    int ok = ctx != NULL && EVP_MAC_init(ctx, key.at, key.length, parameters) == 1 &&
             EVP_MAC_update(ctx, data.at, data.length) == 1 &&
             EVP_MAC_final(ctx, out->at, &out->length, EVP_MAX_MD_SIZE) == 1;
    EVP_MAC_CTX_free(ctx);
    EVP_MAC_free(kind);
    return ok;
}

/* HKDF with salt and info, or KBKDF in counter mode with label (salt) and context (info). */
static int kdf(void) {
    EVP_KDF *kind = EVP_KDF_fetch(NULL, text(1), NULL);
    EVP_KDF_CTX *ctx = kind ? EVP_KDF_CTX_new(kind) : NULL;
    int counts = strcmp(text(1), "KBKDF") == 0;
    struct bytes key = question[3], salt = question[4], info = question[5];
    OSSL_PARAM parameters[6], *p = parameters;
    if (counts) *p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MAC, (char *)"HMAC", 0);
    *p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)text(2), 0);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key.at, key.length);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt.at, salt.length);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.at, info.length);
    *p = OSSL_PARAM_construct_end();
    struct bytes *out = say((size_t)atoi(text(6)));
    int ok = ctx != NULL && EVP_KDF_derive(ctx, out->at, out->length, parameters) == 1;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kind);
    return ok;
}

/* Makes a pair: PKCS#8 and SubjectPublicKeyInfo. */
static int pair(void) {
    EVP_PKEY *key;
    if (strcmp(text(1), "RSA") == 0) {
        key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)atoi(text(2)));
    } else if (strcmp(text(1), "EC") == 0) {
        key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", text(2));
    } else {
        key = EVP_PKEY_Q_keygen(NULL, NULL, text(1));
    }
    PKCS8_PRIV_KEY_INFO *info = key ? EVP_PKEY2PKCS8(key) : NULL;
    unsigned char *private_der = NULL, *public_der = NULL;
    int private_length = info ? i2d_PKCS8_PRIV_KEY_INFO(info, &private_der) : -1;
    int public_length = key ? i2d_PUBKEY(key, &public_der) : -1;
    int ok = private_length > 0 && public_length > 0;
    if (ok) {
        memcpy(say((size_t)private_length)->at, private_der, (size_t)private_length);
        memcpy(say((size_t)public_length)->at, public_der, (size_t)public_length);
    }
    OPENSSL_free(private_der);
    OPENSSL_free(public_der);
    PKCS8_PRIV_KEY_INFO_free(info);
    EVP_PKEY_free(key);
    return ok;
}

/* The key in a field; kept while the next questions are about the same. */
static EVP_PKEY *key_of(int field, int is_private) {
    static struct bytes last[2];
    static EVP_PKEY *kept[2];
    struct bytes der = question[field];
    if (kept[is_private] && last[is_private].length == der.length &&
        memcmp(last[is_private].at, der.at, der.length) == 0)
        return kept[is_private];
    const unsigned char *at = der.at;
    EVP_PKEY_free(kept[is_private]);
    kept[is_private] = is_private ? d2i_AutoPrivateKey(NULL, &at, (long)der.length)
                                  : d2i_PUBKEY(NULL, &at, (long)der.length);
    free(last[is_private].at);
    last[is_private] = room(der.length);
    memcpy(last[is_private].at, der.at, der.length);
    return kept[is_private];
}

static int pad(EVP_PKEY_CTX *ctx, const char *padding) {
    if (strcmp(padding, "pss") == 0)
        return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
    if (strcmp(padding, "oaep") == 0)
        return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1;
    if (strcmp(padding, "pkcs1") == 0)
        return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1;
    if (strcmp(padding, "none") == 0) return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_NO_PADDING) == 1;
    return *padding == 0;
}

/* Key, digest or nothing, padding, data; and the signature, when it is checked. */
static int signature(int makes) {
    EVP_PKEY *key = key_of(1, makes);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *inner = NULL;
    const char *digest = *text(2) ? text(2) : NULL;
    struct bytes data = question[4];
    int ok = key != NULL && ctx != NULL;
    if (makes) {
        ok = ok && EVP_DigestSignInit_ex(ctx, &inner, digest, NULL, NULL, key, NULL) == 1 &&
             pad(inner, text(3));
        size_t length = ok ? (size_t)EVP_PKEY_get_size(key) : 0;
        struct bytes *out = say(length);
        ok = ok && EVP_DigestSign(ctx, out->at, &out->length, data.at, data.length) == 1;
    } else {
        struct bytes given = question[5];
        ok = ok && EVP_DigestVerifyInit_ex(ctx, &inner, digest, NULL, NULL, key, NULL) == 1 &&
             pad(inner, text(3)) &&
             EVP_DigestVerify(ctx, given.at, given.length, data.at, data.length) == 1;
    }
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* Key, padding, digest or nothing, label, data. */
static int rsa_cipher(int decrypts) {
    EVP_PKEY *key = key_of(1, decrypts);
    EVP_PKEY_CTX *ctx = key ? EVP_PKEY_CTX_new(key, NULL) : NULL;
    struct bytes label = question[4], data = question[5];
    int ok = ctx != NULL;
    ok = ok && (decrypts ? EVP_PKEY_decrypt_init(ctx) : EVP_PKEY_encrypt_init(ctx)) == 1;
    ok = ok && pad(ctx, text(2));
    if (ok && strcmp(text(2), "oaep") == 0) {
        ok = EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, text(3), NULL) == 1 &&
             EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, text(3), NULL) == 1;
        unsigned char *copy = ok && label.length ? OPENSSL_memdup(label.at, label.length) : NULL;
        /* The label belongs to the context from here on. */
        if (copy) ok = EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, copy, (int)label.length) == 1;
    }
    struct bytes *out = say(ok ? (size_t)EVP_PKEY_get_size(key) : 0);
    ok = ok && (decrypts ? EVP_PKEY_decrypt(ctx, out->at, &out->length, data.at, data.length)
                         : EVP_PKEY_encrypt(ctx, out->at, &out->length, data.at, data.length)) == 1;
    EVP_PKEY_CTX_free(ctx);
    return ok;
}

static int agree(void) {
    EVP_PKEY *key = key_of(1, 1), *peer = key_of(2, 0);
    EVP_PKEY_CTX *ctx = key ? EVP_PKEY_CTX_new(key, NULL) : NULL;
    struct bytes *out = say(256);
    int ok = ctx != NULL && peer != NULL && EVP_PKEY_derive_init(ctx) == 1 &&
             EVP_PKEY_derive_set_peer(ctx, peer) == 1 &&
             EVP_PKEY_derive(ctx, out->at, &out->length) == 1;
    EVP_PKEY_CTX_free(ctx);
    return ok;
}

static int done(void) {
    const char *asked = text(0);
    if (strcmp(asked, "cipher") == 0) return cipher();
    if (strcmp(asked, "mac") == 0) return mac();
    if (strcmp(asked, "kdf") == 0) return kdf();
    if (strcmp(asked, "pair") == 0) return pair();
    if (strcmp(asked, "sign") == 0) return signature(1);
    if (strcmp(asked, "verify") == 0) return signature(0);
    if (strcmp(asked, "encrypt") == 0) return rsa_cipher(0);
    if (strcmp(asked, "decrypt") == 0) return rsa_cipher(1);
    if (strcmp(asked, "agree") == 0) return agree();
    if (strcmp(asked, "version") == 0) {
        const char *version = OpenSSL_version(OPENSSL_VERSION);
        memcpy(say(strlen(version))->at, version, strlen(version));
        return 1;
    }
    exit(2);
}

static uint32_t number(const unsigned char from[4]) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

int main(void) {
    for (;;) {
        unsigned char count, head[4];
        take(&count, 1);
        if (count == 0 || count > FIELDS_MAX) exit(2);
        for (int at = 0; at < FIELDS_MAX; at++) {
            question[at] = room(0);
            if (at >= count) continue;
            take(head, 4);
            uint32_t length = number(head);
            if (length > FIELD_BYTES_MAX) exit(2);
            free(question[at].at);
            question[at] = room(length);
            take(question[at].at, length);
        }
        answers = 0;
        unsigned char ok = (unsigned char)done();
        ERR_clear_error();
        unsigned char said = ok ? (unsigned char)answers : 0;
        putchar(ok);
        putchar(said);
        for (int at = 0; at < answers; at++) {
            if (at < said) {
                uint32_t length = (uint32_t)answer[at].length;
                unsigned char tail[4] = {(unsigned char)(length >> 24), (unsigned char)(length >> 16),
                                         (unsigned char)(length >> 8), (unsigned char)length};
                fwrite(tail, 1, 4, stdout);
                fwrite(answer[at].at, 1, length, stdout);
            }
            free(answer[at].at);
        }
        if (fflush(stdout) != 0) exit(0);
        for (int at = 0; at < FIELDS_MAX; at++) free(question[at].at);
    }
}
