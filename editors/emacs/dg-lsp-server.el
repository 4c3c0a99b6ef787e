;;; dg-lsp-server.el --- The language server, as Eglot manages it  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; The only file that knows the inside of Eglot, from 1.9 on: what the server
;; is told at the start and of settings, and how it is asked.

;;; Code:

(require 'cl-lib)
(require 'eglot)
(require 'jsonrpc)
(require 'subr-x)
(require 'warnings)
(require 'dg-lsp-ghost)

;; Names that differ between Eglot's versions.
(declare-function eglot-range-region "ext:eglot" (range &optional markers))

(defcustom dg-lsp-command '("dg-lsp")
  "The command that starts the language server, as a list of strings."
  :type '(repeat string)
  :group 'dg-lsp)

(defcustom dg-lsp-settings nil
  "Settings of the server as a property list, for instance (:multiLine \"never\").
True is t, false is `:json-false', and a list of strings may be given as
such.  `dg-lsp-configure' changes them while the server runs.

The section `:dg' of `eglot-workspace-configuration' goes before, so
that a project can have its own in its directory-local variables."
  :type 'plist
  :group 'dg-lsp)

(defclass dg-lsp-server (eglot-lsp-server)
  ((status :initform nil :accessor dg-lsp-server-status
           :documentation "What the server last told of its state, a plist.")
   (last-id :initform nil :accessor dg-lsp-server-last-id
            :documentation "The number of the newest message."))
  "A connection to dg-lsp.")

(defun dg-lsp-contact (&rest _)
  "Return what Eglot is to start, for `eglot-server-programs'."
  `(dg-lsp-server ,@dg-lsp-command :on-shutdown dg-lsp--on-shutdown))

(defun dg-lsp--on-shutdown (server)
  "Let Eglot reconnect SERVER without a window that warns of its end.
The mode line tells, and the warning stays in its buffer."
  (let ((warning-minimum-level :error))
    (eglot--on-shutdown server)))

(defun dg-lsp-current-server ()
  "Return the dg-lsp server of the current buffer, or nil."
  (when (eglot-managed-p)
    (let ((server (eglot-current-server)))
      (and (cl-typep server 'dg-lsp-server)
           (jsonrpc-running-p server)
           server))))

(defun dg-lsp-server-or-lose ()
  "Return the dg-lsp server of the current buffer, or tell that there is none."
  (or (dg-lsp-current-server)
      (user-error "This buffer has no dg-lsp; start it with M-x eglot")))

;;;; What the server is told

(defun dg-lsp--with (object &rest keys-and-values)
  "Return a copy of the plist OBJECT with KEYS-AND-VALUES in it."
  (let ((copy (copy-sequence object)))
    (cl-loop for (key value) on keys-and-values by #'cddr
             do (setq copy (plist-put copy key value)))
    copy))

(cl-defmethod eglot-client-capabilities ((_server dg-lsp-server))
  "Say that ghost text and the server's state are shown here."
  (let ((capabilities (cl-call-next-method)))
    (dg-lsp--with
     capabilities
     :textDocument
     (dg-lsp--with (plist-get capabilities :textDocument)
                   :inlineCompletion '(:dynamicRegistration :json-false))
     :experimental '(:dg (:status t)))))

(defun dg-lsp--json (value)
  "Return VALUE with every list that is no plist as a vector."
  (cond ((not (consp value)) value)
        ((keywordp (car value))
         (cl-loop for (key inner) on value by #'cddr
                  append (list key (dg-lsp--json inner))))
        (t (vconcat (mapcar #'dg-lsp--json value)))))

(defun dg-lsp--merge (below above)
  "Return the settings BELOW with those of ABOVE over them, both plists."
  (cl-loop with merged = (copy-sequence below)
           for (key value) on above by #'cddr
           for under = (plist-get below key)
           do (setq merged
                    (plist-put merged key
                               (if (and (keywordp (car-safe value))
                                        (keywordp (car-safe under)))
                                   (dg-lsp--merge under value)
                                 value)))
           finally return merged))

(cl-defmethod eglot-initialization-options ((_server dg-lsp-server))
  "Send `dg-lsp-settings' along, so that they hold from the first moment."
  (or (dg-lsp--json dg-lsp-settings) (make-hash-table :size 1)))

(cl-defmethod eglot-handle-request
  ((_server dg-lsp-server) (_method (eql workspace/configuration)) &key items)
  "Answer with `dg-lsp-settings', under what Eglot itself has for ITEMS."
  (cl-map 'vector
          (lambda (item project)
            (and (equal (plist-get item :section) "dg")
                 (dg-lsp--json (dg-lsp--merge dg-lsp-settings project))))
          items (cl-call-next-method)))

(defun dg-lsp-configure (&rest settings)
  "Lay the plist SETTINGS over `dg-lsp-settings', and tell all servers.
A setting that is nil takes the server's default again."
  (setq dg-lsp-settings (dg-lsp--merge dg-lsp-settings settings))
  (mapc #'eglot-signal-didChangeConfiguration (dg-lsp--servers)))

(defun dg-lsp--servers ()
  "Return all dg-lsp servers that run."
  (cl-delete-duplicates
   (delq nil (mapcar (lambda (buffer)
                       (with-current-buffer buffer (dg-lsp-current-server)))
                     (buffer-list)))))

;;;; How it is asked

(cl-defmethod jsonrpc-connection-send :before
  ((server dg-lsp-server) &key id method &allow-other-keys)
  "Note the ID of a request, so that SERVER can be told to give it up.
A message without METHOD is an answer, and its id the server's own."
  (when (and id method)
    (setf (dg-lsp-server-last-id server) id)))

(defun dg-lsp-server-send (server method params then &optional otherwise)
  "Ask SERVER for METHOD with PARAMS, and return the number of the request.
THEN is called with the result, OTHERWISE with the message of an error."
  (jsonrpc-async-request
   server method params
   :success-fn then
   :error-fn (jsonrpc-lambda (&key message &allow-other-keys)
               ;; Eglot would show it in the mode line until the next message.
               (setf (jsonrpc-last-error server) nil)
               (when otherwise (funcall otherwise message)))
   ;; The server answers everything in its own time, and an answer after the
   ;; client's patience would be an error in Emacs 28.
   :timeout nil)
  (dg-lsp-server-last-id server))

(defun dg-lsp-server-cancel (server id)
  "Tell SERVER that the answer to request ID is not wanted any more."
  (when (jsonrpc-running-p server)
    (jsonrpc-notify server :$/cancelRequest (list :id id))))

(defun dg-lsp-server-command (server command arguments then)
  "Let SERVER execute COMMAND with the list ARGUMENTS; THEN gets the result."
  (dg-lsp-server-send
   server :workspace/executeCommand
   (list :command command :arguments (vconcat arguments))
   then (lambda (reason) (message "dg-lsp: %s" reason))))

(defun dg-lsp-server-flush ()
  "Send the edits of this buffer that Eglot has kept until now."
  (eglot--signal-textDocument/didChange))

(defun dg-lsp-server-place ()
  "Return the document and the position of point, in the server's terms."
  (eglot--TextDocumentPositionParams))

(defun dg-lsp-server-version ()
  "Return the number of the present state of this buffer's text."
  (plist-get (eglot--VersionedTextDocumentIdentifier) :version))

(defun dg-lsp-server-region (range)
  "Return (START . END) for RANGE of this buffer."
  (if (fboundp 'eglot-range-region)
      (eglot-range-region range)
    (with-no-warnings (eglot--range-region range))))

(provide 'dg-lsp-server)
;;; dg-lsp-server.el ends here
