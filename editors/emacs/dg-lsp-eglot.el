;;; dg-lsp-eglot.el --- The server as Eglot manages it  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; The only file that knows the inside of Eglot, from 1.9 on.

;;; Code:

(require 'cl-lib)
(require 'eglot)
(require 'warnings)
(require 'dg-lsp-server)

;; In this order Emacs 28 initialises it as what Eglot expects.
(defclass dg-lsp-eglot-server (eglot-lsp-server dg-lsp-server) ()
  "A dg-lsp server that Eglot manages.")

(defun dg-lsp-eglot-contact (&rest _)
  "Return what Eglot is to start, for `eglot-server-programs'."
  `(dg-lsp-eglot-server ,@dg-lsp-command :on-shutdown dg-lsp-eglot--on-shutdown))

(defun dg-lsp-eglot--on-shutdown (server)
  "Let Eglot reconnect SERVER without a window that warns of its end.
The mode line tells, and the warning stays in its buffer."
  (let ((warning-minimum-level :error))
    (eglot--on-shutdown server)))

(defun dg-lsp-eglot-current-server ()
  "Return the server of this buffer if it is Eglot's, and dg-lsp."
  (when (eglot-managed-p)
    (let ((server (eglot-current-server)))
      (and (cl-typep server 'dg-lsp-eglot-server) server))))

(add-hook 'dg-lsp-server-functions #'dg-lsp-eglot-current-server)

;;;; What the server is told

(defun dg-lsp-eglot--with (object &rest keys-and-values)
  "Return a copy of the plist OBJECT with KEYS-AND-VALUES in it."
  (let ((copy (copy-sequence object)))
    (cl-loop for (key value) on keys-and-values by #'cddr
             do (setq copy (plist-put copy key value)))
    copy))

(cl-defmethod eglot-client-capabilities ((_server dg-lsp-eglot-server))
  "Say that ghost text and the server's state are shown here."
  (let ((capabilities (cl-call-next-method)))
    (dg-lsp-eglot--with
     capabilities
     :textDocument
     (dg-lsp-eglot--with (plist-get capabilities :textDocument)
                         :inlineCompletion '(:dynamicRegistration :json-false))
     :experimental '(:dg (:status t)))))

(cl-defmethod eglot-initialization-options ((_server dg-lsp-eglot-server))
  "Send `dg-lsp-settings' along, so that they hold from the first moment."
  (dg-lsp-server-settings))

(cl-defmethod eglot-handle-request
  ((_server dg-lsp-eglot-server) (_method (eql workspace/configuration))
   &key items)
  "Answer with `dg-lsp-settings', under what Eglot itself has for ITEMS."
  (cl-map 'vector
          (lambda (item project)
            (and (equal (plist-get item :section) "dg")
                 (dg-lsp-server-settings project)))
          items (dg-lsp-server-unasked (cl-call-next-method))))

(cl-defmethod dg-lsp-server-tell-settings ((server dg-lsp-eglot-server))
  "Let SERVER ask for its settings again."
  (dg-lsp-server-unasked (eglot-signal-didChangeConfiguration server)))

;;;; Notifications that Eglot does not know

(cl-defmethod eglot-handle-notification
  ((server dg-lsp-eglot-server) (_method (eql dg/status)) &rest params)
  "Pass PARAMS of SERVER on."
  (apply #'dg-lsp-server-hear server 'dg/status params))

(cl-defmethod eglot-handle-notification
  ((server dg-lsp-eglot-server) (_method (eql dg/draft)) &rest params)
  "Pass PARAMS of SERVER on."
  (apply #'dg-lsp-server-hear server 'dg/draft params))

(cl-defmethod eglot-handle-notification
  ((server dg-lsp-eglot-server) (_method (eql window/logMessage)) &rest params)
  "Pass PARAMS of SERVER on."
  (apply #'dg-lsp-server-hear server 'window/logMessage params))

;;;; Documents

(cl-defmethod dg-lsp-server-flush ((_server dg-lsp-eglot-server))
  "Send the edits of this buffer that Eglot has kept until now."
  (eglot--signal-textDocument/didChange))

(cl-defmethod dg-lsp-server-place ((_server dg-lsp-eglot-server))
  "Return what Eglot has for point."
  (eglot--TextDocumentPositionParams))

(cl-defmethod dg-lsp-server-version ((_server dg-lsp-eglot-server))
  "Return what Eglot counts."
  (plist-get (eglot--VersionedTextDocumentIdentifier) :version))

(cl-defmethod dg-lsp-server-point ((_server dg-lsp-eglot-server) position)
  "Return where POSITION is for Eglot."
  (eglot--lsp-position-to-point position))

(provide 'dg-lsp-eglot)
;;; dg-lsp-eglot.el ends here
